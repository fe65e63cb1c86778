"""The ways to compute a model's frame in torch: eager, as a CUDA graph, compiled, stage by stage.

The stages are those that export writes as ONNX, behind the runtime's Session, so the times can be
compared with the backends'.
"""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ...training.models.stage_modules import ModuleChain, Precision, StageModule
from ...training.torch_backend import TorchBackend
from .kernels import Kernels

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


WAYS = (
    Way("fp16", graph=True, kernels=True),
    Way("fp32", graph=True, kernels=True),
    Way("fp16", plain=True),
    Way("fp32", plain=True),
    Way("fp16", graph=True),
    Way("fp32", graph=True),
    Way("fp16"),
    Way("fp32"),
    Way("fp16", compiled=True, graph=True),
    Way("fp32", compiled=True, graph=True),
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
