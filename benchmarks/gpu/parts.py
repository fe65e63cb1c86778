"""The parts of `gpu_check`, each for a process of its own: a CUDA error spoils its process."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

from ...runtime.backends.base import default_threads
from ...runtime.bundle.bundle import Bundle
from ...runtime.golden import Agreement, agreement, golden_frame
from ...runtime.media.pixels import Image, levels_apart, psnr
from ...runtime.session import Session
from ...runtime.support.errors import BackendError
from ..measure import installed, summarise
from .child import Say
from .marked_tests import run_tests
from .rows import Row, each, said
from .state import Watch

Spec = dict[str, Any]
"""What a part is asked for: its name as `part`, the names of the rows that are `done`, and what it
needs beside these."""

NEEDED = {
    "ort-cpu": ("onnxruntime",),
    "ort-cuda": ("onnxruntime", "cuda.bindings"),
    "tensorrt": ("tensorrt", "cuda.bindings"),
    "rtx": ("tensorrt_rtx_bindings", "cuda.bindings"),
}
"""By backend, the modules without which it is absent."""


def run_part(spec: Spec, say: Say) -> None:
    """Run a part and report its rows."""
    parts = {
        "machine": machine, "tests": tests, "backends": backends, "kernels": kernels, "ways": ways,
        "training": training,
    }  # fmt: skip
    try:
        parts[spec["part"]](spec, say)
    except Exception as error:  # the other parts are worth running
        say({"failed": said(error)})


def machine(spec: Spec, say: Say) -> None:
    """The GPU, as torch sees it, or else as the runtime does."""
    if installed("torch"):
        import torch

        cudnn = torch.backends.cudnn.version()
        say({"torch": {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": cudnn}})
        if torch.cuda.is_available():
            facts = torch.cuda.get_device_properties(0)
            gpu = {
                "name": facts.name,
                "compute_capability": f"{facts.major}.{facts.minor}",
                "memory_mb": facts.total_memory / 1e6,
                "multiprocessors": facts.multi_processor_count,
                "cache_mb": facts.L2_cache_size / 1e6,
                "in_torch": True,
            }
            say({"gpu": gpu, "complete": True})
            return
    from ...runtime.backends.cuda import open_device

    try:
        device = open_device()
    except BackendError as error:
        say({"gpu": {"absent": error.message}, "complete": True})
        return
    capability = "{}.{}".format(*device.capability)
    found = {"name": device.name, "compute_capability": capability, "in_torch": False}
    say({"gpu": found, "complete": True})


def tests(spec: Spec, say: Say) -> None:
    """The tests marked gpu."""
    run_tests(say, spec["done"])


def backends(spec: Spec, say: Say) -> None:
    """Every backend of the runtime on one bundle, each in a process of its own."""
    bundle = Bundle.open(Path(spec["bundle"]) if spec["bundle"] else None)
    say({"bundle": bundle.manifest.name, "digest": bundle.digest})

    def check(name: str) -> Row:
        why = absent(name, spec["gpu"])
        return {"absent": why} if why else check_backend(bundle, name, spec["frames"])

    each(say, spec["names"], spec["done"], check, alone=True)


def absent(name: str, gpu: bool) -> str:
    """Why a backend is unavailable; not a failure. Empty if it should work.

    Raises:
        BackendError: a GPU or a package that is there cannot be used.
    """
    if missing := [module for module in (*NEEDED[name], "cv2") if not installed(module)]:
        return f"{missing[0]} is not installed"
    if name != "ort-cpu" and not gpu:
        return "there is no GPU"
    try:
        if name == "ort-cuda":
            from ...runtime.backends.ort_cuda import require_provider

            require_provider()
    except BackendError as error:
        return error.message
    if name == "rtx":
        from ...runtime.backends.cuda import open_device
        from ...runtime.engines.tensorrt_packages import check_served, load_flavour, rtx_target

        target, trt = rtx_target(*open_device().capability), load_flavour(name)[1]
        try:
            check_served(name, trt, [target])
        except BackendError as error:
            return error.message
    return ""


def check_backend(bundle: Bundle, name: str, count: int) -> Row:
    """A backend's row over `count` frames, after building its engines, if it has engines.

    Raises:
        SonomimeError: the backend cannot serve, or a golden picture cannot be read.
    """
    from ...export.engine import build_engines
    from ...runtime.animator import Animator
    from ...runtime.engines.tensorrt_packages import FLAVOURS
    from ..cold_start import time_cold_start

    row: Row = {}
    if name in FLAVOURS:
        began = perf_counter()
        built = build_engines(bundle, name)  # from this user's cache, or now
        row["engines"] = built.plain() | {"seconds": perf_counter() - began}
    steps = time_cold_start(bundle, name, default_threads())
    row |= {"cold_ms": steps["total"], "cold_start_ms": steps}
    with Animator.open(bundle, name) as animator:
        apart = agreement(golden_frame(animator.session, bundle), bundle)
        # A GPU's float32 differs from the CPU's in the last bits, and so may a rounding.
        return row | agrees(apart, 45.0) | warm(animator, count)


def agrees(apart: Agreement, least: float) -> Row:
    """How far a frame is from what it should be, and whether that is near enough."""
    return {
        "levels_apart": apart.levels,
        "psnr_db": min(apart.psnr_db, 120.0),  # JSON has no infinity
        "agrees": apart.psnr_db >= least,
    }


def warm(animator: Any, count: int) -> Row:
    """What `sonomime bench` measures of warm frames, without the samples."""
    from ..latency import measure_warm

    animator.reset()
    report = measure_warm(animator, count, max(2, count // 10))
    del report["samples_ms"]
    return report


def kernels(spec: Spec, say: Say) -> None:
    """Compile the kernels and time them, operator by operator."""
    import torch

    from .kernel_times import CASES, time_kernel
    from .kernels import Kernels, build_command

    try:
        build_command(Path("kernels.so"))
    except BackendError as error:
        say({"absent": error.message, "complete": True})
        return
    if spec["library"]:
        built = Kernels(Path(spec["library"]))
    else:
        began = perf_counter()
        built = Kernels.build(Path(spec["folder"]))
        say({"build_seconds": perf_counter() - began})
    cases = {case.name: case for case in CASES}
    device = torch.device("cuda", torch.cuda.current_device())
    each(say, list(cases), spec["done"], lambda n: time_kernel(built, device, cases[n], 20))


def ways(spec: Spec, say: Say) -> None:
    """A model's frame in torch, in all ways; those that torch compiles only if `compiled`."""
    import torch

    from .kernels import Kernels
    from .torch_ways import WAYS

    built = Kernels(Path(spec["library"])) if spec["library"] else None
    todo = {
        way.name: way for way in WAYS
        if (built or not way.kernels) and (spec["compiled"] or not way.compiled)
    }  # fmt: skip
    model = model_of(spec["model"])
    device = torch.device("cuda", torch.cuda.current_device())
    expected: list[Image] = []

    def measure(name: str) -> Row:
        if not expected:
            expected.append(frame_on_cpu(model))
        return time_way(model, todo[name], device, expected[0], spec["frames"], built)

    each(say, list(todo), spec["done"], measure)


def model_of(name: str) -> Any:
    """The model of a checkpoint's file, else of a preset, untrained."""
    import torch

    from ...training.checkpoint import load_checkpoint
    from ...training.config import load_config
    from ...training.models.families import family_of

    if Path(name).is_file():
        return load_checkpoint(Path(name)).model()
    config = load_config(name)
    torch.manual_seed(0)
    return family_of(config.model).model(config.model).eval()


def frame_on_cpu(model: Any) -> Image:
    """The frame in float32 on the CPU, of the default bundle's golden pictures."""
    from ...training.models.families import family_of
    from ...training.torch_backend import TorchBackend

    chain = family_of(model.config).chain(model)
    return golden_frame(Session(chain, TorchBackend(chain)), Bundle.open(None))


def time_way(
    model: Any, way: Any, device: Any, expected: Image, count: int, kernels: Any = None
) -> Row:
    """The row of a way: cold, right, warm. Raises what torch, CUDA or a compiler raises."""
    import torch

    from ...runtime.animator import Animator
    from ...training.models.families import family_of
    from .torch_ways import LEAST_PSNR, WayBackend

    gpu = device.type == "cuda"
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    # TF32 is not float32; choosing among cuDNN's kernels is part of a cold start.
    cudnn.allow_tf32, cudnn.benchmark = False, True
    try:
        if gpu:
            torch.ones(1, device=device)  # CUDA's start is not part of the cold time
            torch.cuda.reset_peak_memory_stats(device)
        began = perf_counter()
        chain = family_of(model.config).chain(model, way.precision)
        animator = Animator(Session(chain, WayBackend(chain, device, way, kernels)))
        made = golden_frame(animator.session, Bundle.open(None))
        row = {"cold_ms": 1e3 * (perf_counter() - began)}
        apart = Agreement(levels_apart(made, expected), psnr(made, expected))
        row |= agrees(apart, LEAST_PSNR[way.precision])
        with Watch() as watch:
            row |= warm(animator, count)
        memory = torch.cuda.max_memory_allocated(device) / 1e6 if gpu else None
        return row | ({"memory_mb": memory, "gpu": watch.summary} if gpu else {})
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


def training(spec: Spec, say: Say) -> None:
    """Training steps of the presets, in both precisions."""
    names = [f"{model}, {precision}" for model in spec["models"] for precision in ("bf16", "fp32")]

    def measure(name: str) -> Row:
        preset, precision = name.split(", ")
        return time_training(preset, 20, f"train.precision={precision}")

    each(say, names, spec["done"], measure)


def time_training(preset: str, count: int, *overrides: str) -> Row:
    """The row of a preset: `count` training steps on one batch of noise.

    Raises:
        CheckpointError: the loss or a gradient is not finite.
    """
    import torch

    from ...training.config import load_config
    from ...training.data.batch import PairBatch
    from ...training.models.families import family_of
    from ...training.trainer import Trainer

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
    gpu = trainer.device.type == "cuda"

    def loop(steps: int) -> list[float]:
        seconds = []
        for _ in range(steps):
            began = perf_counter()
            trainer.train_step()
            if gpu:
                torch.cuda.synchronize()
            seconds.append(perf_counter() - began)
        return seconds

    loop(max(1, count // 10))
    with Watch() as watch:
        row = {"batch": pairs, "ms": summarise(loop(count))}
    memory = torch.cuda.max_memory_allocated() / 1e6 if gpu else None
    return row | ({"memory_mb": memory, "gpu": watch.summary} if gpu else {})
