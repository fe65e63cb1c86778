"""What a batch of training pairs holds, and how much its flow weighs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..config import LossConfig


class PairBatch(NamedTuple):
    """B training pairs. Convention: images in [0, 1], NCHW; points (x, y), half_pixel. Where a
    point is neither visible nor absent, nothing is known about it."""

    source: Tensor  # float32 (B, C, S, S)
    driving: Tensor
    source_points: Tensor  # float32 (B, P, 2), zero where not visible
    driving_points: Tensor
    source_visible: Tensor  # bool (B, P): labelled and inside the frame
    driving_visible: Tensor
    #: float32 (B, S/4, S/4, 2), the target deformation: where to read in the source for each
    #: driving pixel; None when not asked for.
    flow: Tensor | None
    flow_valid: Tensor | None  # bool (B, S/4, S/4), where the flow can be trusted; None with it
    flow_exact: Tensor | None  # bool (B,), the flow is exact, not measured; None with it
    bent: Tensor  # bool (B,), a frame and its own bend
    #: bool (B, P), not in the frame: no clip of the group has such a label, the label says so, or
    #: it lies outside the frame.
    source_absent: Tensor
    driving_absent: Tensor
    #: int64 (B,), the places of these pairs in the batch of all; None: they are all of it.
    place: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        """The batch with every tensor changed."""
        return PairBatch(*(tensor if tensor is None else change(tensor) for tensor in self))

    def parts(self, count: int) -> list[PairBatch]:
        """The batch cut into so many parts of one size."""
        size = len(self.source) // count
        whole = self
        if self.place is None and count > 1:
            whole = self._replace(place=torch.arange(len(self.source)))
        return [
            whole.map(lambda tensor, at=at: tensor[at : at + size])  # type: ignore[misc]
            for at in range(0, size * count, size)
        ]


Sampler = Callable[[int], PairBatch]  # a pure function of the step, so that resuming is exact


def flow_weights(loss: LossConfig, step: int) -> tuple[float, float]:
    """Weights of the flow loss where the flow is measured, and where it is exact: it leads at first
    and decays to 0 at ``flow_until``; where it is exact at least ``flow_exact`` remains."""
    left = max(0.0, 1 - step / loss.flow_until) if loss.flow_until > 0 else 1.0
    return loss.flow * left, max(loss.flow * left, loss.flow_exact)
