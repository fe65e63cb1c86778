"""Losses of keypoints; results are scalars, unweighted."""

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
