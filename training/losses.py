"""Every loss of METHOD.md. Images are (B, C, S, S) in [0, 1]; results are scalars, unweighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .models.discriminator import Judgement
from .models.geometry import AntiAlias, gaussian_heatmap, in_float32, inverse_2x2, make_grid
from .models.keypoint_detector import Keypoints
from .thin_plate import ThinPlateSpline

if TYPE_CHECKING:
    from .perceptual import FeatureNetwork


class Pyramid(nn.Module):
    """An image at 1, 1/2, 1/4 ... of its size, each anti-aliased from the full image."""

    def __init__(self, channels: int, scales: int, geometry: str) -> None:
        super().__init__()
        self.levels = nn.ModuleList(AntiAlias(channels, 2**i, geometry) for i in range(1, scales))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [image] + [level(image) for level in self.levels]


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


def separation(points: Tensor, reach: float = 0.2) -> Tensor:
    """Mean over pairs of exp(-|p_i - p_j|^2 / (2 reach^2)), points (B, K, 2); lite.

    Keypoints that crowd see the same motion.
    """
    count = points.shape[1]
    square = (points[:, :, None] - points[:, None]).square().sum(dim=-1)
    crowding = torch.exp(-square / (2 * reach**2)) * (1 - torch.eye(count, device=points.device))
    return crowding.sum() / (points.shape[0] * max(1, count * (count - 1)))


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


def pyramid_l1(predicted: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 summed over the scales. Eq. 5."""
    return torch.stack([F.l1_loss(p, r) for p, r in zip(predicted, real, strict=True)]).sum()


def perceptual(network: FeatureNetwork, predicted: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 of features, mean over elements, summed over layers and scales. Eq. 6."""
    total = predicted[0].new_zeros(())
    for p, r in zip(predicted, real, strict=True):
        with torch.no_grad():
            targets = network(r)
        for feature, target in zip(network(p), targets, strict=True):
            distance = F.l1_loss(feature.float(), target.float())
            total = total + (
                distance / target.float().abs().mean() if network.normalise else distance
            )
    return total


def lsgan_generator(fake: Judgement) -> Tensor:
    """Mean of (D(y) - 1)^2. Eq. 7."""
    return (fake.score.float() - 1).square().mean()


def lsgan_discriminator(real: Judgement, fake: Judgement) -> Tensor:
    """Mean of (D(x) - 1)^2 + D(y)^2. Eq. 8."""
    return (real.score.float() - 1).square().mean() + fake.score.float().square().mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """L1 on each of the discriminator's features, the real side detached. Eq. 9."""
    pairs = zip(fake.features, real.features, strict=True)
    return torch.stack([F.l1_loss(f.float(), r.detach().float()) for f, r in pairs]).sum()


def flow(deformation: Tensor, known: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """Mean abs of deformation minus known, (B, h, w, 2), where ``valid`` (B, h, w), times each
    pair's weight (B,); lite.

    A pair of weight 0 counts in the mean as one that is right: what the others weigh does not jump
    when its weight ends.
    """
    counts = weights > 0
    valid = valid & counts[:, None, None]
    distance = (deformation - known).abs().sum(dim=-1) * weights[:, None, None]
    return (distance * valid).sum() / valid.sum().clamp(min=1) * counts.float().mean()


def sharpness(predicted: Tensor, real: Tensor, reach: int = 16) -> Tensor:
    """L1 of the local deviation of the finest details, summed over six bands: what plain L1 would
    trade away for blur; lite.

    Bands, Haar's: along rows, columns and diagonals, at two scales. Each is held to its own
    deviation, or else a grid drawn at the finest scale would pay for missing speckle.

    Args:
        reach: side of what counts as local, in pixels.
    """
    total = predicted.new_zeros(())
    for scale in range(2):
        size = reach >> (scale + 1)
        bands, wanted = _haar(predicted), _haar(real)
        for a, b in zip(bands[1:], wanted[1:], strict=True):
            total = total + F.l1_loss(_deviation(a, size), _deviation(b, size))
        predicted, real = bands[0] / 2, wanted[0] / 2
    return total


def _haar(image: Tensor) -> tuple[Tensor, ...]:
    """Orthonormal Haar bands (B, C, H/2, W/2): low-pass, along columns, along rows, diagonal."""
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def _deviation(band: Tensor, size: int) -> Tensor:
    return (F.avg_pool2d(band.square(), size, size // 2) + 1e-5).sqrt()
