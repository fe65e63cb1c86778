"""Monkey-Net's losses: L1 of pixels and of the discriminator's features, and LSGAN.

Nothing is detached in the generator's step but the discriminator's own weights: the heatmaps of the
driving keypoints are a part of what it sees, so it trains the keypoints too. Source: METHOD,
"Monkey-Net".
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...data.batch import PairBatch
from .. import image_losses
from ..base import Objective, StepResult
from ..geometry import make_grid
from ..image_losses import Discriminator
from .model import Keypoints, MonkeyNet, heatmaps

DEEPEST = 0.1  # what the deepest feature counts beside the others


class MonkeyNetObjective(Objective):
    """See `Objective`."""

    def run(self, model: MonkeyNet, batch: PairBatch, step: int) -> tuple[Tensor, Keypoints]:
        """The prediction, and the driving frame's keypoints."""
        both = model.keypoint_detector(torch.cat([batch.source, batch.driving]))
        parts = (x.split(len(batch.source)) for x in both)
        source, driving = (Keypoints(*each) for each in zip(*parts, strict=True))
        prediction, _ = model.animate(model.encode(batch.source, source), driving)
        return prediction, driving

    def forward(
        self, model: MonkeyNet, batch: PairBatch, step: int, discriminator: Discriminator | None
    ) -> StepResult:
        w = self.config.loss
        prediction, driving = self.run(model, batch, step)
        grid = make_grid(*prediction.shape[-2:], "half_pixel", prediction.device)
        heat = heatmaps(driving, grid)
        real, fake = (torch.cat([image, heat], dim=1) for image in (batch.driving, prediction))
        losses = {"reconstruction": w.reconstruction * image_losses.l1(prediction, batch.driving)}
        if w.sharpness > 0:
            losses["sharpness"] = w.sharpness * image_losses.sharpness(prediction, batch.driving)
        if discriminator is not None:
            found, wanted = discriminator(fake), discriminator(real)
            losses["adversarial"] = w.adversarial * image_losses.lsgan_generator(found)
            pairs = zip(found.features, wanted.features, strict=True)
            *upper, deepest = (image_losses.l1(f, r) for f, r in pairs)
            matching = torch.stack([*upper, DEEPEST * deepest]).sum()
            losses["feature_matching"] = w.feature_matching * matching
        return StepResult(losses, prediction, batch, (real, fake))
