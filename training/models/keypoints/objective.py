"""The objective: every loss of a configuration, weighted, over one forward pass."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ....runtime.support.errors import ConfigError
from ...config import Config
from ...data.batch import PairBatch
from .. import image_losses
from ..base import Objective, StepResult, step_result
from ..discriminator import Discriminator
from ..perceptual import FeatureNetwork
from . import losses
from .generator import Prediction
from .keypoint_detector import Keypoints
from .model import AnimationModel
from .thin_plate import ThinPlateSpline, random_thin_plate_spline


class Forward(NamedTuple):
    """What the networks make of a batch: keypoints of three frames, and the prediction."""

    source: Keypoints
    driving: Keypoints
    transformed: Keypoints
    spline: ThinPlateSpline
    prediction: Prediction


class KeypointObjective(Objective):
    """See `Objective`; METHOD, "Losses of the keypoint models"."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        weights, model = config.loss, config.model
        perceptual = weights.perceptual_network != "none" and weights.perceptual > 0
        if not (perceptual or weights.content or weights.reconstruction or weights.adversarial):
            raise ConfigError(
                "no loss sees the image: the generator would learn nothing",
                "give a network for the perceptual loss (loss.perceptual_network and "
                "loss.perceptual_weights), or --set loss.reconstruction=10",
            )
        if weights.perceptual > 0 and not perceptual:
            self.remarks = (
                "no perceptual loss: give loss.perceptual_network and loss.perceptual_weights",
            )
        self.pyramid = image_losses.Pyramid(
            model.channels, max(4, weights.perceptual_scales), model.geometry
        )
        self.features = (
            FeatureNetwork(weights.perceptual_network, weights.perceptual_weights)
            if perceptual
            else None
        )

    def run(self, model: AnimationModel, batch: PairBatch, step: int) -> Forward:
        size = batch.driving.shape[0]
        generator = torch.Generator().manual_seed(self.config.train.seed * 1_000_003 + step)
        spline = random_thin_plate_spline(size, generator).to(batch.driving.device)
        transformed_image = spline.warp(batch.driving, self.config.model.geometry)

        # One batch of all three kinds: BatchNorm sees them alike.
        found = model.keypoint_detector(torch.cat([batch.source, batch.driving, transformed_image]))
        source, driving, transformed = (
            Keypoints(v, j)
            for v, j in zip(found.value.split(size), found.jacobian.split(size), strict=True)
        )
        prediction, _ = model.animate(model.encode(batch.source, source), driving)
        return Forward(source, driving, transformed, spline, prediction)

    def forward(
        self, model: AnimationModel, batch: PairBatch, step: int,
        discriminator: Discriminator | None,
    ) -> StepResult:  # fmt: skip
        w = self.config.loss
        source, driving, transformed, spline, prediction = self.run(model, batch, step)

        result: dict[str, Tensor] = {}
        every = w.equivariance_on == "all"
        held = None if every else model.config.keypoints.self_supervised
        a, b = (Keypoints(k.value[:, :held], k.jacobian[:, :held]) for k in (driving, transformed))
        if w.equivariance_value > 0:
            value = losses.equivariance_value(a, b, spline)
            result["equivariance_value"] = w.equivariance_value * value
        if w.equivariance_jacobian > 0:
            jacobian = losses.equivariance_jacobian(a, b, spline)
            result["equivariance_jacobian"] = w.equivariance_jacobian * jacobian
        labels = batch.driving_points.shape[1]
        # A model without supervised keypoints ignores the labels of labelled clips.
        if labels and model.config.keypoints.supervised and w.supervision > 0:
            result["supervision"] = w.supervision * losses.keypoint_supervision(
                torch.cat([source.value[:, -labels:], driving.value[:, -labels:]]),
                torch.cat([batch.source_points, batch.driving_points]),
                torch.cat([batch.source_visible, batch.driving_visible]),
                self.config.model.image_size // 4,
                w.supervision_variance,
                model.config.geometry,
            )
        real = self.pyramid(batch.driving)
        image = self.pyramid(prediction.image)
        if w.content > 0:
            content = self.pyramid(prediction.content)
            result["content"] = w.content * image_losses.pyramid_l1(content[:4], real[:4])
        if w.reconstruction > 0:
            l1 = image_losses.pyramid_l1(image[:4], real[:4])
            result["reconstruction"] = w.reconstruction * l1
        if self.features is not None:
            n = w.perceptual_scales
            distance = image_losses.perceptual(self.features, image[:n], real[:n])
            result["perceptual"] = w.perceptual * distance
        if discriminator is not None:
            fake = discriminator(prediction.image)
            with torch.no_grad():
                truth = discriminator(batch.driving)
            matching = image_losses.feature_matching(fake, truth)
            result["adversarial"] = w.adversarial * image_losses.lsgan_generator(fake)
            result["feature_matching"] = w.feature_matching * matching
        return step_result(result, prediction.image, batch)
