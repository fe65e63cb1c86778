"""A chain of torch modules in every way that a device allows: compiled, or as one CUDA graph.

What export writes as ONNX, before it is written: the same modules, wires and precision. So torch's
numbers are comparable with the backends', stage by stage. On a GPU the frame goes the way that the
runtime's does: pinned uint8 in, everything between on the device, pinned uint8 out, one
synchronisation.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.bundle.manifest import DRIVING_FRAME, FRAME, SOURCE_IMAGE
from ...runtime.media.pixels import to_image, to_planes
from ...training.models.base import ModuleChain, StageModule
from ...training.torch_backend import TorchBackend
from .clock import Clock

if TYPE_CHECKING:
    from .kernels import Kernels

Image = NDArray[np.uint8]


class DeviceChain(TorchBackend):
    """A backend for a `Session`, to be timed."""

    def __init__(
        self,
        chain: ModuleChain,
        device: torch.device,
        compiled: bool = False,
        channels_last: bool = False,
        kernels: Kernels | None = None,
    ) -> None:
        """`kernels`: compute the three operators with them rather than with torch."""
        super().__init__(chain, device)
        self._in_kernels = kernels.in_the_stages if kernels else nullcontext
        for name, module in self.modules.items():
            if channels_last:
                module = module.to(memory_format=torch.channels_last)  # type: ignore[attr-defined]
            self.modules[name] = torch.compile(module, dynamic=False) if compiled else module
        self._settings = chain.settings()
        self._sent: dict[str, bytes] = {}
        self._graph: torch.cuda.CUDAGraph | None = None

    def compute(self, stage: StageModule) -> None:
        with self._in_kernels():
            super().compute(stage)

    def keep(self, tensor: str, value: Tensor) -> None:
        """Without a copy, which is no part of a frame; a graph goes on reading where it did."""
        if self._graph is None:
            self.tensors[tensor] = value
        else:
            super().keep(tensor, value)

    def run_frame(self) -> None:
        self.enqueue()
        self.synchronise()

    @torch.no_grad()
    def enqueue(self) -> None:
        """One frame, whichever way it goes."""
        self._send_settings()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._frame()

    @torch.no_grad()
    def capture(self) -> None:
        """Make the frame one CUDA graph, after some that are not: they choose the kernels."""
        self._send_settings()
        stream = torch.cuda.Stream(self.place)
        stream.wait_stream(torch.cuda.current_stream(self.place))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._frame()
        torch.cuda.current_stream(self.place).wait_stream(stream)
        self.synchronise()
        self._graph = self.record(torch.cuda.CUDAGraph())

    @torch.no_grad()
    def record(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.CUDAGraph:
        """Capture one frame into a graph. The tensors are that graph's from then on."""
        # torch no longer collects before a capture, and one within would free what disturbs it.
        gc.collect()
        with torch.cuda.graph(graph):
            self._frame()
        return graph

    def finite(self) -> bool:
        """Whether every tensor of the last frame is."""
        floats = [tensor for tensor in self.tensors.values() if tensor.is_floating_point()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in floats)

    @torch.no_grad()
    def time_stages(self, count: int) -> dict[str, list[float]]:
        """Seconds of every per-frame stage without a graph, by events on a GPU."""
        spans: dict[str, list[Callable[[], float]]] = {stage.name: [] for stage in self.per_frame}
        for _ in range(count):
            for stage in self.per_frame:
                clock = Clock(self.place)
                self.compute(stage)
                spans[stage.name].append(clock.stop())
            self.synchronise()
        return {stage: [span() for span in spanned] for stage, spanned in spans.items()}

    def _frame(self) -> None:
        """Enqueue one frame: upload, stages, the states carried on, download."""
        self.upload([DRIVING_FRAME])
        for stage in self.per_frame:
            self.compute(stage)
        self.carry_states()
        self.download()

    def _send_settings(self) -> None:
        """Outside of the graph, and only what has changed."""
        now = {name: self.view(name).tobytes() for name in self._settings}
        self.upload(name for name in self._settings if now[name] != self._sent.get(name))
        self._sent = now


@torch.no_grad()
def plain_loop(
    chain: DeviceChain, source: Image, frames: Sequence[Image], count: int
) -> list[float]:
    """Seconds of frames the way that engines are commonly chained: the source is encoded again for
    every frame, and every stage's tensors come to the host and go back.

    Written after how such loops are described, not after anybody's code: pageable memory, the
    default stream, a synchronisation per stage.
    """
    seconds = []
    wired = {tensor.name for stage in chain.stages.values() for tensor in stage.inputs}
    host = {name: tensor.cpu() for name, tensor in chain.tensors.items() if name in wired}
    host[SOURCE_IMAGE] = torch.from_numpy(to_planes(source))
    for i in range(count):
        began = perf_counter()
        host[DRIVING_FRAME] = torch.from_numpy(to_planes(frames[i % len(frames)]))
        for stage in chain.stages.values():
            if stage.role == "landmarks":  # no part of a frame, however it is chained
                continue
            given = [host[tensor.name].to(chain.place) for tensor in stage.inputs]
            results = chain.modules[stage.name](*given)
            listed = (results,) if isinstance(results, Tensor) else results
            for wire, result in zip(stage.outputs, listed, strict=True):
                host[wire.name] = result.cpu()
        for made, state in chain.recurrent:
            host[state] = host[made]
        to_image(host[FRAME].numpy())
        seconds.append(perf_counter() - began)
    return seconds
