"""The matching model as a `Family`, and as its own oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....runtime.alignment import SURE
from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS, DisplacementControl, Layers
from ...config import Config, ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Oracle
from ..geometry import make_grid
from ..stage_modules import Kind, Named, as_frame, named
from . import stages
from .fields import determinant, judge
from .landmarks import LandmarkDetector
from .model import MatchingModel
from .objective import MatchingObjective
from .transfer import CONTROLS, MOST, smooth_and_put, state_size


class MatchingOracle(Oracle):
    """The two subjects are not aligned."""

    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.generator.encode(source)
        self._reference = self.model.matcher.encoder(reference)
        grid = self.model.config.matcher.grid
        self._alignment = make_grid(grid, grid, "half_pixel")[None]
        return {
            "alignment": self._alignment,
            **named("source", self._source),
            **named("reference", self._reference),
        }

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        seen = self.model.matcher.encoder(driving)
        _, found = self.model.match(seen, self._reference)
        passed, next_state = smooth_and_put(found, self._alignment, *given, state)
        frame, motion = self.model.animate(self._source, passed)
        tensors = {
            **named("driving", seen),
            **passed._asdict(),
            "next_state": next_state,
            **motion._asdict(),
            "quality": judge(passed.displacement, passed.confidence, motion.deformation),
            **frame.layers._asdict(),
            "frame": as_frame(frame.image()),
        }
        if self.model.landmarks is not None:
            # This stage runs on its own, so any image will do.
            tensors[LANDMARK_IMAGE] = as_frame(driving)
            tensors[LANDMARKS] = self.model.landmarks.located(driving)
        return tensors


class MatchingFamily(Family):
    """Only the landmark detector learns labels."""

    model = MatchingModel
    objective = MatchingObjective
    eager = MatchingOracle
    controls = CONTROLS
    plans = staticmethod(stages.plans)
    meanings = stages.MEANINGS
    layers = Layers("deformation", "stiff", "gain", "offset", "gate")
    label_network = "landmarks"
    label_hint = "--set model.landmarks.count={}, or leave it out to follow the labels"

    def labels(self, config: ModelConfig) -> int:
        return config.landmarks.count

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        model = config.model
        if model.landmarks.count or not config.loss.landmarks:
            return config
        count = replace(model.landmarks, count=len(names))
        return replace(config, model=replace(model, landmarks=count))

    def columns(self, model: MatchingModel, batch: PairBatch) -> Columns:
        _, passed = model.match(*model.observe_both(batch.driving, batch.source))
        frame, motion = model.animate(model.generator.encode(batch.source), passed)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": motion.deformation,
            "displacement": colour_wheel(passed.displacement),
            "confidence": passed.confidence,
            "shading": passed.shading / (2 * MOST) + 0.5,
            "folding": 1 - determinant(passed.displacement).clamp(0, 1)[:, None],
            "gate": frame.layers.gate / 2,
            "prediction": frame.image(),
        }
        seen = () if model.landmarks is None else ("source", "driving")
        return Columns(images, {name: _shown(model.landmarks, images[name]) for name in seen})

    def control(self, config: ModelConfig, names: Sequence[str]) -> DisplacementControl:
        grid, shading = config.matcher.grid, config.matcher.shading
        return DisplacementControl(grid, grid, shading, shading, tuple(names))

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        grid = config.matcher.grid
        return {
            "state": (torch.float32, (1, state_size(config))),
            "alignment": (torch.float32, (1, grid, grid, 2)),
        }


def _shown(detector: LandmarkDetector, images: Tensor) -> Tensor:
    """Places (B, K, 2) of the landmarks found; others are put outside of the picture."""
    found = detector.located(images)
    return found[..., :2].masked_fill(found[..., 2:] < SURE, -2.0)


def colour_wheel(displacement: Tensor) -> Tensor:
    """A displacement (B, n, n, 2) as colours (B, 3, n, n): the hue is the direction, white is no
    motion, full saturation a length of .16 points or more."""
    angle = torch.atan2(displacement[..., 1], displacement[..., 0])
    length = (displacement.square().sum(-1).sqrt() / 0.16).clamp(0, 1)
    hues = torch.stack([angle - k * 2 * torch.pi / 3 for k in range(3)], dim=1)
    return 1 - length[:, None] * (0.5 - 0.5 * torch.cos(hues))
