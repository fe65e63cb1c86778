"""The matching model as a `Family`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....runtime.alignment import SURE
from ....runtime.bundle.manifest import DisplacementControl, ImageFormat, Layers, Recurrent
from ....runtime.support.errors import ConfigError
from ...config import Config, ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, ModuleChain, Precision
from .fields import determinant
from .landmarks import LandmarkDetector
from .model import MatchingModel, both
from .objective import MatchingObjective
from .oracle import MatchingOracle
from .stages import build_stages
from .transfer import CONTROLS, MOST


class MatchingFamily:
    """See `Family`. Only the landmark detector learns labels."""

    label_network = "landmarks"
    model = MatchingModel
    objective = MatchingObjective
    oracle = MatchingOracle

    def labels(self, config: ModelConfig) -> int:
        return config.landmarks.count

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        model = config.model
        if model.landmarks.count or not config.loss.landmarks:
            return config
        count = replace(model.landmarks, count=len(names))
        return replace(config, model=replace(model, landmarks=count))

    def check_labels(self, config: ModelConfig, names: Sequence[str]) -> None:
        learned = self.labels(config)
        if names and learned and len(names) != learned:
            raise ConfigError(
                f"the data labels {len(names)} landmarks ({', '.join(names)}), the model learns "
                f"{learned}",
                f"--set model.landmarks.count={len(names)}, or leave it out to follow the labels",
            )

    def columns(self, model: MatchingModel, batch: PairBatch) -> Columns:
        driving, reference = both(batch.driving, batch.source, model)
        _, passed = model.match(driving, reference)
        animation = model.animate(model.encode(batch.source), passed)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": animation.motion.deformation,
            "displacement": colour_wheel(passed.displacement),
            "confidence": passed.confidence,
            "shading": passed.shading / (2 * MOST) + 0.5,
            "folding": 1 - determinant(passed.displacement).clamp(0, 1)[:, None],
            "gate": animation.frame.layers.gate / 2,
            "prediction": animation.frame.image(),
        }
        seen = () if model.landmarks is None else ("source", "driving")
        return Columns(images, {name: _shown(model.landmarks, images[name]) for name in seen})

    def chain(
        self, model: MatchingModel, precision: Precision = "fp32", names: Sequence[str] = ()
    ) -> ModuleChain:
        config = model.config
        grid, shading = config.matcher.grid, config.matcher.shading
        found = tuple(names[: config.landmarks.count])
        return ModuleChain(
            image=ImageFormat(config.image_size, 3 if config.channels == 3 else 1),
            geometry=config.geometry,
            control=DisplacementControl(grid, grid, shading, shading, found),
            controls=CONTROLS,
            stages=build_stages(model, precision, landmarks=bool(found)),
            recurrent=(Recurrent("next_state", "state"),),
            layers=Layers("deformation", "stiff", "gain", "offset", "gate"),
        )


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
