"""The objective: every loss of a configuration, weighted; the losses of keypoints, scalars; and the
random splines that bend frames.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....runtime.support.errors import ConfigError
from ...config import Config
from ...data.batch import PairBatch
from .. import image_losses
from ..base import Objective, StepResult
from ..geometry import gaussian_heatmap, in_float32, inverse_2x2, make_grid, mirrored, to_edges
from ..image_losses import Discriminator
from ..perceptual import FeatureNetwork
from .model import AnimationModel, Prediction
from .motion import Keypoints


class ThinPlateSpline(NamedTuple):
    """T(u) = A u + b + sum of w_i U(|u - c_i|), U(r) = r^2 ln(r + 1e-6), per sample of a batch.

    Convention: points (x, y) in [-1, 1]. Source: METHOD, "Losses of the keypoint models".
    affine: (B, 2, 3) = [A b]; weights: (B, n, 2); centres: (n, 2).
    """

    affine: Tensor
    weights: Tensor
    centres: Tensor

    @in_float32
    def __call__(self, points: Tensor) -> Tensor:
        """T of points (B, N, 2)."""
        linear = points @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, :, 2][:, None]
        across, down = points[..., :1] - self.centres[:, 0], points[..., 1:] - self.centres[:, 1]
        square = across.square() + down.square()
        # 1e-12: a root's slope at 0 is infinite, and a keypoint may sit on a control point.
        return linear + (square * ((square + 1e-12).sqrt() + 1e-6).log()) @ self.weights

    @in_float32
    def jacobian(self, points: Tensor) -> Tensor:
        """dT/du at points (B, N, 2): (B, N, 2, 2), row = output coordinate."""
        offset = points[:, :, None] - self.centres
        r = offset.norm(dim=-1, keepdim=True)
        # dU/du = (u - c) (2 ln(r + e) + r / (r + e)): no division by r, which is 0 at a centre.
        slope = offset * (2 * (r + 1e-6).log() + r / (r + 1e-6))
        bend = torch.einsum("bnid,bio->bnod", slope, self.weights)
        return self.affine[:, None, :, :2] + bend

    def warp(self, image: Tensor, geometry: str) -> Tensor:
        """Y(z) = X(T(z)) with reflection padding; image (B, C, S, S)."""
        batch, _, height, width = image.shape
        # Not expanded over the batch: the distances to the centres are the same for all.
        grid = make_grid(height, width, geometry, image.device).view(1, -1, 2)
        where = mirrored(self(grid)).view(batch, height, width, 2)
        edges = to_edges(where, image, geometry)
        return F.grid_sample(image, edges, padding_mode="reflection", align_corners=False)


def random_thin_plate_spline(
    batch: int,
    generator: torch.Generator,
    sigma_affine: float = 0.05,
    sigma_weights: float = 0.013,
    side: int = 5,
) -> ThinPlateSpline:
    """Draw [A b] = [I 0] + N(0, sigma_affine), and N(0, sigma_weights) at side x side points.

    .013 bends as much as FOMM's .005 does with its other distance. On the CPU, so that one seed
    gives one spline on every device.
    """
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    affine = identity + sigma_affine * torch.randn(batch, 2, 3, generator=generator)
    weights = sigma_weights * torch.randn(batch, side * side, 2, generator=generator)
    centres = make_grid(side, side, "fomm_aligned").reshape(-1, 2)
    return ThinPlateSpline(affine, weights, centres)


class KeypointObjective(Objective):
    """See `Objective`; METHOD, "Losses of the keypoint models"."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        weights, model = config.loss, config.model
        self.features: FeatureNetwork | None = None
        if weights.perceptual > 0 and weights.perceptual_network != "none":
            self.features = FeatureNetwork(weights.perceptual_network, weights.perceptual_weights)
        others = weights.reconstruction, weights.adversarial, weights.feature_matching
        on_image = sum(others) + weights.sharpness
        if model.generator.kind == "single":  # its content is the final image
            on_image += weights.content
        if self.features is None and on_image == 0:
            raise ConfigError(
                "no loss sees the final image, so the generator would draw untrained noise",
                "give a network for the perceptual loss (loss.perceptual_network and "
                "loss.perceptual_weights), or a weight above 0 to loss.reconstruction (10, say), "
                "loss.adversarial, loss.feature_matching or loss.sharpness",
            )
        if self.features is None and weights.perceptual > 0:
            self.remarks = (
                "no perceptual loss, which the paper's models have: expect softer pictures and "
                "other figures than the paper's. Give loss.perceptual_network and "
                "loss.perceptual_weights",
            )
        self.pyramid = image_losses.Pyramid(model.channels, 4, model.geometry)

    def run(
        self, model: AnimationModel, batch: PairBatch, step: int
    ) -> tuple[list[Keypoints], ThinPlateSpline, Prediction]:
        """Keypoints of the source, the driving frame and that frame bent by a spline; the spline;
        the prediction."""
        size = batch.driving.shape[0]
        generator = torch.Generator().manual_seed(self.config.train.seed * 1_000_003 + step)
        # A part of a batch has the splines of its places in the whole.
        place = torch.arange(size) if batch.place is None else batch.place.cpu()
        count = size if batch.place is None else self.config.train.batch_size
        strength = self.config.loss.spline
        drawn = random_thin_plate_spline(count, generator, sigma_weights=strength)
        drawn = drawn._replace(affine=drawn.affine[place], weights=drawn.weights[place])
        spline = ThinPlateSpline(*(x.to(batch.driving.device) for x in drawn))
        bent = spline.warp(batch.driving, self.config.model.geometry)

        # One batch of all three kinds: BatchNorm sees them alike.
        found = model.keypoint_detector(torch.cat([batch.source, batch.driving, bent]))
        parts = zip(*(x.split(size) for x in found), strict=True)
        source, driving, transformed = (Keypoints(*part) for part in parts)
        still = model.encode(batch.source, source)
        background = model.background_motion(still.small, model.down(batch.driving))
        prediction, _ = model.animate(still, driving, background)
        return [source, driving, transformed], spline, prediction

    def totals(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Exact but for `sharpness`, and `perceptual` by SqueezeNet: shares of a batch's mean."""
        labels = batch.source_visible.sum() + batch.driving_visible.sum()
        return {"supervision": torch.stack([labels, torch.ones_like(labels)])}

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
            found["equivariance_value"] = equivariance_value(*pair, spline)
        if w.equivariance_jacobian > 0:
            found["equivariance_jacobian"] = equivariance_jacobian(*pair, spline)
        labels = batch.driving_points.shape[1]
        # A model without supervised keypoints ignores the labels of labelled clips.
        if labels and points.supervised and w.supervision > 0:
            found["supervision"] = keypoint_supervision(
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
            found["content"] = image_losses.pyramid_l1(content, real)
        if w.reconstruction > 0:
            found["reconstruction"] = image_losses.pyramid_l1(image, real)
        if self.features is not None:
            found["perceptual"] = image_losses.perceptual(self.features, image, real)
        if w.sharpness > 0:
            found["sharpness"] = image_losses.sharpness(prediction.image, batch.driving)
        if discriminator is not None:
            fake = discriminator(prediction.image)
            with torch.no_grad():
                truth = discriminator(batch.driving)
            found["adversarial"] = image_losses.lsgan_generator(fake)
            found["feature_matching"] = image_losses.feature_matching(fake, truth)
        weighted = {name: getattr(w, name) * loss for name, loss in found.items()}
        return StepResult(weighted, prediction.image, batch)


@in_float32
def equivariance_value(
    driving: Keypoints, transformed: Keypoints, spline: ThinPlateSpline
) -> Tensor:
    """Mean abs of p(X) - T(p(Y)), Y(z) = X(T(z)). "Feature Decoupling" Eq. 1."""
    return (driving.value - spline(transformed.value)).abs().mean()


@in_float32
def equivariance_jacobian(
    driving: Keypoints, transformed: Keypoints, spline: ThinPlateSpline
) -> Tensor:
    """Mean abs of I - J(X)^-1 (dT/du at p(Y)) J(Y). Eq. 2-3."""
    chain = (
        inverse_2x2(driving.jacobian) @ spline.jacobian(transformed.value) @ transformed.jacobian
    )
    return (torch.eye(2, device=chain.device) - chain).abs().mean()


def keypoint_supervision(
    predicted: Tensor, labelled: Tensor, visible: Tensor, size: int, variance: float, geometry: str
) -> Tensor:
    """Mean over labelled points and pixels of (G(p) - G(p*))^2, G a Gaussian of peak 1. Eq. 4.

    Unlabelled points are left out, not pulled to zero.
    predicted, labelled: (B, P, 2); visible: (B, P) bool.
    """
    grid = make_grid(size, size, geometry, predicted.device)
    # What stands for "no label" must not reach a gradient, not even multiplied by 0: it may be NaN.
    labelled = torch.where(visible[..., None], labelled, predicted.detach())
    heat, wanted = (gaussian_heatmap(p, grid, variance) for p in (predicted, labelled))
    per_point = (heat - wanted).square().mean(dim=(2, 3))
    return (per_point * visible).sum() / visible.sum().clamp(min=1)
