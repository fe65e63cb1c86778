"""The objective: every loss of a configuration, weighted, over one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from ....runtime.support.errors import ConfigError
from ...config import Config
from ...data.batch import PairBatch
from .. import image_losses
from ..base import Objective, StepResult
from ..discriminator import Discriminator
from ..perceptual import FeatureNetwork
from . import losses
from .keypoint_detector import Keypoints
from .model import AnimationModel, Prediction


class KeypointObjective(Objective):
    """See `Objective`; METHOD, "Losses of the keypoint models"."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        weights, model = config.loss, config.model
        named = weights.perceptual_network != "none"
        self.features: FeatureNetwork | None = None
        if weights.perceptual > 0 and named:
            self.features = FeatureNetwork(weights.perceptual_network, weights.perceptual_weights)
        elif not (weights.content or weights.reconstruction or weights.adversarial):
            raise ConfigError(
                "no loss sees the image: the generator would learn nothing",
                "give a network for the perceptual loss (loss.perceptual_network and "
                "loss.perceptual_weights), or --set loss.reconstruction=10",
            )
        elif weights.perceptual > 0:
            self.remarks = (
                "no perceptual loss: give loss.perceptual_network and loss.perceptual_weights",
            )
        self.pyramid = image_losses.Pyramid(
            model.channels, max(4, weights.perceptual_scales), model.geometry
        )

    def run(
        self, model: AnimationModel, batch: PairBatch, step: int
    ) -> tuple[list[Keypoints], losses.ThinPlateSpline, Prediction]:
        """Keypoints of the source, the driving frame and that frame bent by a spline; the spline;
        the prediction."""
        size = batch.driving.shape[0]
        generator = torch.Generator().manual_seed(self.config.train.seed * 1_000_003 + step)
        drawn = losses.random_thin_plate_spline(size, generator)
        spline = losses.ThinPlateSpline(*(x.to(batch.driving.device) for x in drawn))
        bent = spline.warp(batch.driving, self.config.model.geometry)

        # One batch of all three kinds: BatchNorm sees them alike.
        found = model.keypoint_detector(torch.cat([batch.source, batch.driving, bent]))
        parts = zip(*(x.split(size) for x in found), strict=True)
        source, driving, transformed = (Keypoints(*part) for part in parts)
        prediction, _ = model.animate(model.encode(batch.source, source), driving)
        return [source, driving, transformed], spline, prediction

    def forward(
        self, model: AnimationModel, batch: PairBatch, step: int,
        discriminator: Discriminator | None,
    ) -> StepResult:  # fmt: skip
        w, points = self.config.loss, model.config.keypoints
        (source, driving, transformed), spline, prediction = self.run(model, batch, step)
        found: dict[str, Tensor] = {}
        held = None if w.equivariance_on == "all" else points.self_supervised
        pair = [Keypoints(*(x[:, :held] for x in each)) for each in (driving, transformed)]
        if w.equivariance_value > 0:
            found["equivariance_value"] = losses.equivariance_value(*pair, spline)
        if w.equivariance_jacobian > 0:
            found["equivariance_jacobian"] = losses.equivariance_jacobian(*pair, spline)
        labels = batch.driving_points.shape[1]
        # A model without supervised keypoints ignores the labels of labelled clips.
        if labels and points.supervised and w.supervision > 0:
            found["supervision"] = losses.keypoint_supervision(
                torch.cat([source.value[:, -labels:], driving.value[:, -labels:]]),
                torch.cat([batch.source_points, batch.driving_points]),
                torch.cat([batch.source_visible, batch.driving_visible]),
                self.config.model.image_size // 4,
                w.supervision_variance,
                model.config.geometry,
            )
        real, image = self.pyramid(batch.driving), self.pyramid(prediction.image)
        if w.content > 0:
            content = self.pyramid(prediction.content)
            found["content"] = image_losses.pyramid_l1(content[:4], real[:4])
        if w.reconstruction > 0:
            found["reconstruction"] = image_losses.pyramid_l1(image[:4], real[:4])
        if self.features is not None:
            n = w.perceptual_scales
            found["perceptual"] = image_losses.perceptual(self.features, image[:n], real[:n])
        if discriminator is not None:
            fake = discriminator(prediction.image)
            with torch.no_grad():
                truth = discriminator(batch.driving)
            found["adversarial"] = image_losses.lsgan_generator(fake)
            found["feature_matching"] = image_losses.feature_matching(fake, truth)
        weighted = {name: getattr(w, name) * loss for name, loss in found.items()}
        return StepResult(weighted, prediction.image, batch)
