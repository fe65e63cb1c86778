"""What the oracles of both families share: controls, the smoothing's state, wire names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...runtime.bundle.manifest import ControlInput
from ...runtime.media.pixels import to_planes
from .base import Image, Tensors
from .stage_modules import normalised

Named = dict[str, Tensor]


class EagerOracle:
    """See `Oracle`. A family says what it sees of the source and how it makes a frame."""

    def __init__(self, model: Any, controls: Sequence[ControlInput], state_size: int) -> None:
        self.model = model.eval()
        self.defaults = {control.name: control.default for control in controls}
        self.state_size = state_size

    def look(self, source: Tensor, reference: Tensor) -> Named:
        """Tensors that stay the same for all frames; images (1, C, S, S) in [0, 1]."""
        raise NotImplementedError

    def frame(self, driving: Tensor, given: Named, state: Tensor) -> Named:
        """The tensors of one frame, with `frame` and `next_state`; `given` are the controls."""
        raise NotImplementedError

    @torch.no_grad()
    def set_source(self, image: Image, reference: Image) -> None:
        source, first = (torch.from_numpy(to_planes(each)) for each in (image, reference))
        self._still = {"source_image": source, **self.look(normalised(source), normalised(first))}
        self._state = torch.zeros(1, self.state_size)

    @torch.no_grad()
    def animate(self, frame: Image, controls: Mapping[str, float] | None = None) -> Tensors:
        driving, values = torch.from_numpy(to_planes(frame)), self.defaults | dict(controls or {})
        given = {name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()}
        made = self.frame(normalised(driving), given, self._state)
        tensors = {**self._still, **given, "driving_frame": driving, "state": self._state, **made}
        self._state = made["next_state"]
        return {name: tensor.numpy() for name, tensor in tensors.items()}
