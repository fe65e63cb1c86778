"""The bundle's stages in torch, on any device: eager, compiled, or a whole frame as one CUDA graph.

What export writes as ONNX, before it is written: the same modules, wires and precision. So torch's
numbers are comparable with the backends', stage by stage. On a GPU the frame goes the way that the
runtime's does: pinned uint8 in, everything between on the device, pinned uint8 out, one
synchronisation.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..export.stages import Precision, StageModule, build_stages
from ..runtime.wiring import CONTROLS, DRIVING, DRIVING_FRAME, FRAME, REFERENCE, SOURCE_IMAGE
from ..training.models.animator import AnimationModel

if TYPE_CHECKING:
    from .kernels import Kernels

Image = NDArray[np.uint8]
STATE, NEXT_STATE = "state", "next_state"


class StageChain:
    """Stages with their tensors on a device; frames are uint8 (S, S) or (S, S, 3)."""

    def __init__(
        self,
        model: AnimationModel,
        precision: Precision,
        device: torch.device,
        compiled: bool = False,
        channels_last: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        """`kernels`: compute the three operators with them rather than with torch."""
        self.device = device
        self.kernels = kernels
        self.stages: list[StageModule] = build_stages(model, precision)
        self.modules: dict[str, Callable[..., Any]] = {}
        for stage in self.stages:
            module = stage.module.to(device)
            if channels_last:
                module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.modules[stage.name] = (
                torch.compile(module, dynamic=False) if compiled else module  # type: ignore[assignment]
            )
        self.per_frame = [stage for stage in self.stages if stage.when == "per_frame"]
        self.tensors: dict[str, Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._host = self._given()

    def _given(self) -> dict[str, Tensor]:
        """Zeros for what no stage makes, on the device; the images' memory on the host."""
        made = {tensor.name for stage in self.stages for tensor in stage.outputs}
        for stage in self.stages:
            for tensor in stage.inputs:
                if tensor.name not in made:
                    dtype = getattr(torch, tensor.dtype)
                    self.tensors[tensor.name] = torch.zeros(
                        tensor.shape, dtype=dtype, device=self.device
                    )
        values = dict.fromkeys(CONTROLS, 0.0) | {
            "scale": 1.0,
            "dt_seconds": 1 / 30,
        }
        for name, value in values.items():
            self.tensors[name].fill_(value)
        shape = self.tensors[SOURCE_IMAGE].shape
        pinned = self.device.type == "cuda"
        return {
            name: torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)
            for name in (SOURCE_IMAGE, DRIVING_FRAME, FRAME)
        }

    @torch.no_grad()
    def set_source(self, image: Image, reference: Image, relative: bool = True) -> None:
        """Run the `once` stages and take the reference; smoothing is off and its state fresh."""
        self.tensors["relative"].fill_(float(relative))
        self._put(SOURCE_IMAGE, image)
        self._put(DRIVING_FRAME, reference)
        with self._kernels():
            self._upload(SOURCE_IMAGE)
            self._upload(DRIVING_FRAME)
            for stage in self.stages:
                if stage.when == "once" or stage.name == "keypoints":
                    self.run(stage)
        for name in [name for name in self.tensors if name.startswith(DRIVING + "kp_")]:
            self.tensors[REFERENCE + name.removeprefix(DRIVING)].copy_(self.tensors[name])
        self.tensors[STATE].zero_()
        self._synchronize()

    def run(self, stage: StageModule) -> None:
        """One stage; its results replace the tensors of their names."""
        results = self.modules[stage.name](*(self.tensors[tensor.name] for tensor in stage.inputs))
        listed = (results,) if isinstance(results, Tensor) else results
        for wire, result in zip(stage.outputs, listed, strict=True):
            self.tensors[wire.name] = result

    @torch.no_grad()
    def frame(self) -> None:
        """Enqueue one frame: upload, stages, the state carried on, download."""
        self._upload(DRIVING_FRAME)
        for stage in self.per_frame:
            self.run(stage)
        self.tensors[STATE].copy_(self.tensors[NEXT_STATE])
        self._host[FRAME].copy_(self.tensors[FRAME], non_blocking=True)

    @torch.no_grad()
    def capture(self) -> None:
        """Make the frame one CUDA graph, after some that are not: they choose the kernels."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream), self._kernels():
            for _ in range(3):
                self.frame()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        self._synchronize()
        self._graph = self.record(torch.cuda.CUDAGraph())

    @torch.no_grad()
    def record(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.CUDAGraph:
        """Capture one frame into a graph. The tensors are that graph's from then on."""
        # torch no longer collects before a capture, and one within would free what disturbs it.
        gc.collect()
        with self._kernels(), torch.cuda.graph(graph):
            self.frame()
        return graph

    def set_state_fresh(self) -> None:
        """Forget the smoothing's past, as a new clip does."""
        self.tensors[STATE].zero_()
        self._synchronize()

    def finite(self) -> bool:
        """Whether every tensor of the last frame is."""
        floats = [tensor for tensor in self.tensors.values() if tensor.is_floating_point()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in floats)

    def enqueue(self) -> None:
        """One frame, whichever way it goes."""
        if self._graph is not None:
            self._graph.replay()
        else:
            with self._kernels():
                self.frame()

    def animate(self, frame: Image) -> Image:
        """One frame from host memory to host memory."""
        self._put(DRIVING_FRAME, frame)
        self.enqueue()
        self._synchronize()
        return as_image(self._host[FRAME])

    def time_frames(self, frames: Sequence[Image], count: int) -> list[float]:
        """Seconds of `count` frames, each from host memory to host memory."""
        seconds = []
        for i in range(count):
            began = perf_counter()
            self.animate(frames[i % len(frames)])
            seconds.append(perf_counter() - began)
        return seconds

    @torch.no_grad()
    def time_stages(self, count: int) -> dict[str, list[float]]:
        """Seconds of every per-frame stage without a graph, by events on a GPU."""
        seconds: dict[str, list[float]] = {stage.name: [] for stage in self.per_frame}
        for _ in range(count):
            spans = []
            with self._kernels():
                for stage in self.per_frame:
                    clock = Clock(self.device)
                    self.run(stage)
                    spans.append(clock.stop())
            self._synchronize()
            for stage, span in zip(self.per_frame, spans, strict=True):
                seconds[stage.name].append(span())
        return seconds

    def _put(self, name: str, image: Image) -> None:
        planes = image[None, None] if image.ndim == 2 else image.transpose(2, 0, 1)[None]
        self._host[name].numpy()[...] = planes

    def _upload(self, name: str) -> None:
        self.tensors[name].copy_(self._host[name], non_blocking=True)

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    @contextmanager
    def _kernels(self) -> Iterator[None]:
        with self.kernels.in_the_stages() if self.kernels else nullcontext():
            yield


class Clock:
    """A span on a device: events on a GPU, the host's clock else."""

    def __init__(self, device: torch.device) -> None:
        self._gpu = device.type == "cuda"
        if self._gpu:
            self._begin = torch.cuda.Event(enable_timing=True)
            self._begin.record()
        self._began = perf_counter()

    def stop(self) -> Callable[[], float]:
        """End it; the result tells the seconds, once the device has got there."""
        if not self._gpu:
            seconds = perf_counter() - self._began
            return lambda: seconds
        end = torch.cuda.Event(enable_timing=True)
        end.record()
        return lambda: self._begin.elapsed_time(end) / 1e3


@torch.no_grad()
def plain_loop(
    chain: StageChain, source: Image, frames: Sequence[Image], count: int
) -> list[float]:
    """Seconds of frames the way that engines are commonly chained: the source is encoded again for
    every frame, and every stage's tensors come to the host and go back.

    Written after how such loops are described, not after anybody's code: pageable memory, the
    default stream, a synchronisation per stage.
    """
    seconds = []
    wired = {tensor.name for stage in chain.stages for tensor in stage.inputs}
    host = {name: tensor.cpu() for name, tensor in chain.tensors.items() if name in wired}
    host[SOURCE_IMAGE] = as_planes(source)
    for i in range(count):
        began = perf_counter()
        host[DRIVING_FRAME] = as_planes(frames[i % len(frames)])
        for stage in chain.stages:
            given = [host[tensor.name].to(chain.device) for tensor in stage.inputs]
            results = chain.modules[stage.name](*given)
            listed = (results,) if isinstance(results, Tensor) else results
            for wire, result in zip(stage.outputs, listed, strict=True):
                host[wire.name] = result.cpu()
        host[STATE] = host[NEXT_STATE]
        as_image(host[FRAME])
        seconds.append(perf_counter() - began)
    return seconds


def as_planes(image: Image) -> Tensor:
    """uint8 (S, S) or (S, S, 3) -> (1, C, S, S)."""
    planes = image[None, None] if image.ndim == 2 else image.transpose(2, 0, 1)[None]
    return torch.from_numpy(np.ascontiguousarray(planes))


def as_image(tensor: Tensor) -> Image:
    """The reverse, a copy."""
    array = tensor.numpy()
    return np.array(array[0, 0] if array.shape[1] == 1 else array[0].transpose(1, 2, 0))
