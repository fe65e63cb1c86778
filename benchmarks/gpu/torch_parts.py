"""The parts that need torch: kernels, a model's frame in several ways, training steps.

The ways are eager, as a CUDA graph, compiled, stage by stage. Their stages are those that export
writes as ONNX, behind the runtime's Session, so the times can be compared with the backends'.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...runtime.animator import Animator
from ...runtime.bundle.bundle import Bundle
from ...runtime.golden import golden_frame
from ...runtime.media.pixels import Image, levels_apart, psnr
from ...runtime.session import Session
from ...runtime.support.errors import BackendError
from ...training.config_file import load_config
from ...training.data.batch import PairBatch
from ...training.models.base import Model, ModuleChain, Precision, StageModule
from ...training.models.families import family_of
from ...training.torch_backend import TorchBackend
from ..eager import model_of
from ..latency import measure_warm
from ..measure import agrees, seconds_of, summarise
from ..nvidia_smi import watch
from .child import Row, Say, Spec, each
from .kernels import CASES, LIBRARY, Kernels, build_command, time_kernel

LEAST_PSNR = {"fp32": 60.0, "fp16": 45.0}
"""dB to the model in float32 on the CPU."""


class Way(NamedTuple):
    """A way to compute the frame."""

    precision: Precision
    graph: bool = False
    compiled: bool = False
    kernels: bool = False
    plain: bool = False  # the source again for every frame, every tensor to the host and back

    @property
    def name(self) -> str:
        word = "plain loop" if self.plain else "compiled" if self.compiled else "eager"
        more = [", our kernels"] * self.kernels + [", CUDA graph"] * self.graph
        return f"{word}, {self.precision}" + "".join(more)


PRECISIONS: tuple[Precision, ...] = ("fp16", "fp32")
WAYS = (
    *(Way(precision, graph=True, kernels=True) for precision in PRECISIONS),
    *(Way(precision, plain=True) for precision in PRECISIONS),
    *(Way(precision, graph=True) for precision in PRECISIONS),
    *(Way(precision) for precision in PRECISIONS),
    *(Way(precision, graph=True, compiled=True) for precision in PRECISIONS),
)
"""The most important ones first, since time may run out; compiling takes minutes."""


class WayBackend(TorchBackend):
    """The backend of a way."""

    def __init__(
        self, chain: ModuleChain, device: torch.device, way: Way, kernels: Kernels | None = None
    ) -> None:
        super().__init__(chain, device)
        self._way = way
        self._in_kernels = kernels.in_the_stages if way.kernels and kernels else nullcontext
        self._graph: torch.cuda.CUDAGraph | None = None
        if way.compiled:
            torch.compiler.reset()  # what other ways compiled counts towards torch's limit
            for name, module in self.modules.items():
                self.modules[name] = torch.compile(module, dynamic=False)

    def compute(self, stage: StageModule) -> None:
        if self._way.plain:
            self.upload(tensor.name for tensor in stage.inputs)
        with self._in_kernels():
            super().compute(stage)
        if self._way.plain:
            for wire in stage.outputs:
                self.tensors[wire.name] = self.tensors[wire.name].cpu().to(self.place)

    def keep(self, tensor: str, value: Tensor) -> None:
        """Without a copy, which is not part of a frame; but a graph reads the same memory again."""
        if self._graph is None:
            self.tensors[tensor] = value
        else:
            super().keep(tensor, value)

    @torch.no_grad()
    def run_frame(self) -> None:
        """The first frame of a graph captures it."""
        if self._way.graph and self._graph is None:
            self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._frame()
        self.synchronise()

    def _frame(self) -> None:
        self.upload(self.of_frame)
        for stage in self.stages.values():
            if stage.per_frame or (self._way.plain and stage.role == "source"):
                self.compute(stage)
        self.carry_states()
        self.download()

    def _capture(self) -> None:
        states = {state: self.tensors[state].clone() for _, state in self.recurrent}
        stream = torch.cuda.Stream(self.place)
        stream.wait_stream(torch.cuda.current_stream(self.place))
        with torch.cuda.stream(stream):
            for _ in range(3):  # without a graph: they choose the kernels
                self._frame()
        torch.cuda.current_stream(self.place).wait_stream(stream)
        self.synchronise()
        gc.collect()  # torch no longer does before a capture, and freeing during one disturbs it
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._frame()
        self._graph = graph
        for state, value in states.items():
            self.tensors[state].copy_(value)


def kernels(spec: Spec, say: Say) -> bool:
    """Compile the kernels and time them, operator by operator."""
    folder = Path(spec["folder"])
    try:
        build_command(folder / LIBRARY)
    except BackendError as error:
        say({"absent": error.message})
        return True
    built, device = Kernels.build(folder), torch.device("cuda", 0)
    cases = {case.name: case for case in CASES}
    return each(say, list(cases), spec["done"], lambda n: time_kernel(built, device, cases[n], 20))


def ways(spec: Spec, say: Say) -> bool:
    """A model's frame in all ways; those that torch compiles only if `compiled`."""
    library = Path(spec["folder"], LIBRARY)
    built = Kernels(library) if library.is_file() else None
    todo = {
        way.name: way
        for way in WAYS
        if (built or not way.kernels) and (spec["compiled"] or not way.compiled)
    }
    # TF32 is not float32; choosing among cuDNN's kernels is part of a cold start.
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = False, True
    name, device = spec["model"], torch.device("cuda", 0)
    model = model_of(Path(name) if Path(name).is_file() else None, name)
    expected = functools.cache(lambda: frame_on_cpu(model))

    def measure(name: str) -> Row:
        return time_way(model, todo[name], device, expected(), spec["frames"], built)

    return each(say, list(todo), spec["done"], measure)


def training(spec: Spec, say: Say) -> bool:
    """Training steps of the presets, in both precisions."""
    names = [f"{model}, {precision}" for model in spec["models"] for precision in ("bf16", "fp32")]

    def measure(name: str) -> Row:
        preset, precision = name.split(", ")
        return time_training(preset, 20, f"train.precision={precision}")

    return each(say, names, spec["done"], measure)


def on_the_device(device: torch.device, measure: Callable[[], Row]) -> Row:
    """What `measure` finds; on a GPU also torch's memory, and the GPU's state meanwhile."""
    if device.type != "cuda":
        return measure()
    with watch() as state:
        row = measure()
    return row | {"memory_mb": torch.cuda.max_memory_allocated(device) / 1e6, "gpu": state}


def frame_on_cpu(model: Model) -> Image:
    """The frame in float32 on the CPU, of the default bundle's golden pictures."""
    chain = family_of(model.config).chain(model)
    return golden_frame(Session(chain, TorchBackend(chain)), Bundle.open(None))


def time_way(
    model: Model, way: Way, device: torch.device, expected: Image, count: int,
    kernels: Kernels | None = None,
) -> Row:  # fmt: skip
    """The row of a way: cold, right, warm. Raises what torch, CUDA or a compiler raises."""
    if device.type == "cuda":
        torch.ones(1, device=device)  # CUDA's start is not part of the cold time
        torch.cuda.reset_peak_memory_stats(device)
    began = perf_counter()
    chain = family_of(model.config).chain(model, way.precision)
    animator = Animator(Session(chain, WayBackend(chain, device, way, kernels)))
    made = golden_frame(animator.session, Bundle.open(None))
    row: dict[str, Any] = {"cold_ms": 1e3 * (perf_counter() - began)}
    apart = levels_apart(made, expected), psnr(made, expected)
    row |= agrees(*apart, LEAST_PSNR[way.precision])
    warmup = max(2, count // 10)
    return row | on_the_device(device, lambda: measure_warm(animator, count, warmup).report)


def time_training(preset: str, count: int, *overrides: str) -> Row:
    """The row of a preset: `count` training steps on one batch of noise.

    Raises:
        CheckpointError: the loss or a gradient is not finite.
    """
    from ...training.trainer import Trainer  # needs OpenCV, which the other parts do not

    config = load_config(preset, overrides)
    labels = [f"label {i}" for i in range(family_of(config.model).labels(config.model))]
    size, pairs = config.model.image_size, config.train.batch_size
    source, driving = torch.rand(2, pairs, config.model.channels, size, size)
    points = torch.zeros(pairs, len(labels), 2)
    seen = torch.ones(pairs, len(labels), dtype=torch.bool)
    bent = torch.zeros(pairs, dtype=torch.bool)
    batch = PairBatch(
        source, driving, points, points, seen, seen, None, None, None, bent, ~seen, ~seen
    )
    trainer = Trainer(config, lambda step: batch, Path(), labels, [])

    def step() -> None:
        trainer.train_step()
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()

    seconds_of(step, max(1, count // 10))
    return on_the_device(
        trainer.device, lambda: {"batch": pairs, "ms": summarise(seconds_of(step, count))}
    )
