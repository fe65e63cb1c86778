"""A backend of torch modules, so that a checkpoint runs in the runtime's Session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..runtime.backends.base import boundary, not_boundary
from ..runtime.bundle.checks import check_wiring
from ..runtime.bundle.manifest import DRIVING_FRAME, FRAME
from ..runtime.session import Session
from ..runtime.support.errors import BackendError
from ..runtime.support.timing import Spans
from .checkpoint import Checkpoint
from .models.families import family_of
from .models.stage_modules import ModuleChain, StageModule


class TorchBackend:
    """See `Backend`: eager modules, one after the other, on a torch device."""

    name = "torch"

    def __init__(self, chain: ModuleChain, device: torch.device = torch.device("cpu")) -> None:  # noqa: B008
        """Move the modules to the device; all tensors are zero."""
        self.device = f"{device}, torch {torch.__version__}"
        self.threads = torch.get_num_threads()
        self.place = device
        self.stages = {stage.name: stage for stage in chain.stages}
        self.modules: dict[str, Callable[..., Any]] = {
            stage.name: stage.module.to(device) for stage in chain.stages
        }
        self.per_frame = [stage for stage in chain.stages if stage.per_frame]

        def zeros(like: Mapping[str, Any], **where: Any) -> dict[str, Tensor]:
            return {
                name: torch.zeros(tensor.shape, dtype=getattr(torch, tensor.dtype), **where)
                for name, tensor in like.items()
            }

        self.tensors = zeros(chain.tensors(), device=device)
        self.host = zeros(boundary(chain), pin_memory=device.type == "cuda")
        self.given = chain.given()
        self.of_frame = [*chain.settings(), DRIVING_FRAME]
        if device.type == "cpu":  # given tensors are read in place
            self.tensors |= {name: self.host[name] for name in self.given}
        self.recurrent = [(pair.from_, pair.to) for pair in chain.recurrent]
        self._spans = Spans([stage.name for stage in self.per_frame])

    @property
    def seconds(self) -> Mapping[str, float]:
        return self._spans

    def view(self, tensor: str) -> NDArray[Any]:
        if tensor not in self.host:
            raise not_boundary(tensor)
        view: NDArray[Any] = self.host[tensor].numpy()
        return view

    def read(self, tensor: str) -> NDArray[Any]:
        held = self.host[tensor] if tensor in self.given else self.tensors[tensor]
        copy: NDArray[Any] = held.detach().cpu().numpy().copy()
        return copy

    def write(self, tensor: str, value: ArrayLike) -> None:
        if tensor in self.host:
            self.view(tensor)[...] = value
        if tensor not in self.given:
            whole = torch.from_numpy(np.array(value, dtype=self.read(tensor).dtype))
            self.tensors[tensor].copy_(whole)

    def copy(self, source: str, target: str) -> None:
        self.tensors[target].copy_(self.tensors[source])

    @torch.no_grad()
    def run(self, stage: str) -> None:
        self.upload(tensor.name for tensor in self.stages[stage].inputs)
        self.compute(self.stages[stage])
        if any(tensor.name == FRAME for tensor in self.stages[stage].outputs):
            self.download()
        self.synchronise()

    @torch.no_grad()
    def run_frame(self) -> None:
        self._spans.start()
        self.upload(self.of_frame)
        for i, stage in enumerate(self.per_frame):
            self.compute(stage)
            self._spans.lap(i)
        self.carry_states()
        self.download()
        self.synchronise()

    def upload(self, names: Iterable[str]) -> None:
        """Copy the caller's tensors among these to the device."""
        if self.place.type == "cuda":
            for name in names:
                if name in self.given:
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

    def download(self) -> None:
        """Copy the frame to the host."""
        self.host[FRAME].copy_(self.tensors[FRAME], non_blocking=True)

    def carry_states(self) -> None:
        """Copy the recurrent states after a frame."""
        for made, state in self.recurrent:
            self.copy(made, state)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.place.type == "cuda":
            torch.cuda.current_stream(self.place).synchronize()

    def close(self) -> None:
        self.modules.clear()
        self.tensors.clear()


def open_session(checkpoint: Checkpoint) -> Session:
    """A checkpoint's EMA weights, ready to animate on the CPU, in the stages that export writes.

    Raises:
        CheckpointError: the weights do not fit the configuration.
    """
    family = family_of(checkpoint.config.model)
    chain = family.chain(checkpoint.model(), names=checkpoint.supervised_names)
    check_wiring(chain)
    return Session(chain, TorchBackend(chain))
