"""A backend of torch modules, so that a checkpoint runs in the runtime's Session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..runtime.backends.base import Views, boundary
from ..runtime.bundle import manifest
from ..runtime.bundle.checks import check_wiring
from ..runtime.bundle.manifest import DRIVING_FRAME, FRAME
from ..runtime.session import Session
from ..runtime.support.errors import BackendError
from ..runtime.support.timing import Spans
from .checkpoint import Checkpoint
from .models.base import ModuleChain, StageModule
from .models.families import family_of


class TorchBackend:
    """See `Backend`: eager modules, one after the other, on a torch device."""

    name = "torch"

    def __init__(self, chain: ModuleChain, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        """Move the modules to the device; all tensors are zero."""
        self.device = f"{device}, torch {torch.__version__}"
        self.precision = "fp32"
        self.chain, self.place = chain, device
        self.stages = {stage.name: stage for stage in chain.stages}
        self.modules: dict[str, Callable[..., Any]] = {
            stage.name: stage.module.to(device) for stage in chain.stages
        }
        self.per_frame = [stage for stage in chain.stages if stage.per_frame]
        self.seconds = Spans({stage.name: 0.0 for stage in self.per_frame})
        self.recurrent = [(pair.from_, pair.to) for pair in chain.recurrent]
        self.given = chain.given()
        self.of_frame = [*chain.settings(), DRIVING_FRAME]
        self.tensors = {name: _zeros(like).to(device) for name, like in chain.tensors().items()}
        self.host = {name: _zeros(like) for name, like in boundary(chain).items()}
        if device.type == "cuda":
            self.host = {name: tensor.pin_memory() for name, tensor in self.host.items()}
        self.views = Views((name, tensor.numpy()) for name, tensor in self.host.items())

    def another(self) -> TorchBackend:
        return TorchBackend(self.chain, self.place)

    def view(self, tensor: str) -> NDArray[Any]:
        return self.views[tensor]

    def read(self, tensor: str) -> NDArray[Any]:
        held = self.host[tensor] if tensor in self.given else self.tensors[tensor]
        return held.detach().cpu().numpy().copy()

    def write(self, tensor: str, value: ArrayLike) -> None:
        if tensor in self.host:
            self.view(tensor)[...] = value
        if tensor not in self.given:
            self.tensors[tensor].copy_(torch.from_numpy(np.array(value)))

    def copy(self, source: str, target: str) -> None:
        self.tensors[target].copy_(self.tensors[source])

    @torch.no_grad()
    def run(self, stage: str) -> None:
        self.upload(tensor.name for tensor in self.stages[stage].inputs)
        self.compute(self.stages[stage])
        self.download()
        self.synchronise()

    @torch.no_grad()
    def run_frame(self) -> None:
        self.seconds.start()
        self.upload(self.of_frame)
        for stage in self.per_frame:
            self.compute(stage)
            self.seconds.lap(stage.name)
        self.carry_states()
        self.download()
        self.synchronise()

    def upload(self, names: Iterable[str]) -> None:
        """Copy the caller's tensors among these to the device."""
        for name in set(names) & set(self.given):
            self.tensors[name].copy_(self.host[name], non_blocking=True)

    def compute(self, stage: StageModule) -> None:
        """Enqueue one stage.

        Raises:
            BackendError: it failed, or its outputs are not those that it declares.
        """
        try:
            results = self.modules[stage.name](*(self.tensors[t.name] for t in stage.inputs))
        except Exception as error:  # whatever a module raises
            raise BackendError(f"stage {stage.name!r} failed in torch: {error}") from error
        listed = (results,) if isinstance(results, Tensor) else results
        made = [(str(each.dtype).removeprefix("torch."), tuple(each.shape)) for each in listed]
        if made != [(wire.dtype, wire.shape) for wire in stage.outputs]:
            raise BackendError(f"stage {stage.name!r} does not make what it declares: {made}")
        for wire, result in zip(stage.outputs, listed, strict=True):
            self.keep(wire.name, result)

    def keep(self, tensor: str, value: Tensor) -> None:
        """Copy a result, which may be a view of an input or a parameter."""
        self.tensors[tensor].copy_(value)

    def carry_states(self) -> None:
        """Copy the recurrent states after a frame."""
        for made, state in self.recurrent:
            self.copy(made, state)

    def download(self) -> None:
        """Copy the frame to the host."""
        self.host[FRAME].copy_(self.tensors[FRAME], non_blocking=True)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.place.type == "cuda":
            torch.cuda.current_stream(self.place).synchronize()

    def close(self) -> None:
        self.modules.clear()
        self.tensors.clear()


def _zeros(like: manifest.Tensor) -> Tensor:
    return torch.zeros(like.shape, dtype=getattr(torch, like.dtype))


def open_session(checkpoint: Checkpoint) -> Session:
    """A checkpoint's EMA weights, ready to animate on the CPU, in the stages that export writes.

    Raises:
        CheckpointError: the weights do not fit the configuration.
    """
    family = family_of(checkpoint.config.model)
    chain = family.chain(checkpoint.model(), names=checkpoint.supervised_names)
    check_wiring(chain)
    return Session(chain, TorchBackend(chain))
