"""The matching model itself, in torch and float32: what an export is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS
from ..geometry import make_grid
from ..oracle import EagerOracle, Named
from ..stage_modules import as_frame
from .fields import judge
from .model import MatchingModel, Seen
from .stages import SEEN, SOURCE
from .transfer import CONTROLS, smooth_and_put, state_size


class MatchingOracle(EagerOracle):
    """See `Oracle`. The two subjects are not aligned."""

    def __init__(self, model: MatchingModel) -> None:
        super().__init__(model, CONTROLS, state_size(model.config))
        grid = model.config.matcher.grid
        self.alignment = make_grid(grid, grid, "half_pixel")[None]

    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.encode(source)
        self._reference = self.model.observe(reference)
        return {
            "alignment": self.alignment,
            **dict(zip(SOURCE, self._source, strict=True)),
            **_named("reference", self._reference),
        }

    def frame(self, driving: Tensor, given: Named, state: Tensor) -> Named:
        seen = self.model.observe(driving)
        _, found = self.model.match(seen, self._reference)
        passed, next_state = smooth_and_put(found, self.alignment, *given.values(), state)
        animation = self.model.animate(self._source, passed)
        quality = judge(passed.displacement, passed.confidence, animation.motion.deformation)
        tensors = {
            **_named("driving", seen),
            **passed._asdict(),
            "next_state": next_state,
            **animation.motion._asdict(),
            "quality": torch.stack(quality, dim=1),
            **animation.frame.layers._asdict(),
            "frame": as_frame(animation.frame.image()),
        }
        if self.model.landmarks is not None:
            # This stage runs on its own, so any image will do.
            tensors[LANDMARK_IMAGE] = as_frame(driving)
            tensors[LANDMARKS] = self.model.landmarks.located(driving)
        return tensors


def _named(who: str, seen: Seen) -> Named:
    tensors = (*seen.descriptors, seen.light)
    return {f"{who}_{name}": x for name, x in zip(SEEN, tensors, strict=True)}
