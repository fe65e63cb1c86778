"""Losses of keypoints, scalars and unweighted, and the random splines that bend frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import gaussian_heatmap, in_float32, inverse_2x2, make_grid
from .keypoint_detector import Keypoints


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
        grid = make_grid(height, width, geometry, image.device).view(1, -1, 2).expand(batch, -1, 2)
        where = self(grid).view(batch, height, width, 2)
        return F.grid_sample(image, where, padding_mode="reflection", align_corners=False)


def random_thin_plate_spline(
    batch: int,
    generator: torch.Generator,
    sigma_affine: float = 0.05,
    sigma_weights: float = 0.005,
    side: int = 5,
) -> ThinPlateSpline:
    """Draw [A b] = [I 0] + N(0, sigma_affine), and N(0, sigma_weights) at side x side points.

    On the CPU, so that one seed gives one spline on every device.
    """
    identity = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    affine = identity + sigma_affine * torch.randn(batch, 2, 3, generator=generator)
    weights = sigma_weights * torch.randn(batch, side * side, 2, generator=generator)
    centres = make_grid(side, side, "fomm").reshape(-1, 2)
    return ThinPlateSpline(affine, weights, centres)


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
