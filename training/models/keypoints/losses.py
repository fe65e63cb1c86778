"""Losses of keypoints and of the motion that they carry; results are scalars, unweighted."""

from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import gaussian_heatmap, in_float32, inverse_2x2, make_grid
from .keypoint_detector import Keypoints
from .thin_plate import ThinPlateSpline


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
