"""The thin-plate spline: formula, derivative against autograd, what warping with it means."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sonomime.training.models.geometry import gaussian_heatmap, make_grid
from sonomime.training.models.keypoints.thin_plate import ThinPlateSpline, random_thin_plate_spline


def spline(seed: int = 0, batch: int = 2, weights: float = 0.05) -> ThinPlateSpline:
    return random_thin_plate_spline(batch, torch.Generator().manual_seed(seed), 0.05, weights)


def points(seed: int) -> Tensor:
    return torch.rand(2, 9, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_values_are_the_formula_also_in_autocast() -> None:
    bend, u = spline(), points(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = bend(u).numpy()
    centres = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    for b in range(2):
        affine, weights = bend.affine[b].double().numpy(), bend.weights[b].double().numpy()
        for n in range(u.shape[1]):
            at = u[b, n].double().numpy()
            r = np.hypot(*(at - centres).T)
            expected = affine[:, :2] @ at + affine[:, 2] + (r**2 * np.log(r + 1e-6)) @ weights
            assert np.abs(found[b, n] - expected).max() < 1e-5


def test_jacobian_is_that_of_autograd_and_has_finite_gradients() -> None:
    bend, u = spline(2), points(3)
    u[0, 0] = bend.centres[7]  # at a control point itself
    with torch.autocast("cpu", torch.bfloat16):
        found = bend.jacobian(u)
    every = torch.autograd.functional.jacobian(bend, u)  # (2, 9, 2, 2, 9, 2)
    exact = torch.einsum("bnobni->bnoi", every)
    assert (found - exact).abs().max() < 1e-4
    u.requires_grad_()
    (bend(u).sum() + bend.jacobian(u).sum()).backward()
    assert u.grad is not None and u.grad.isfinite().all()


def test_warped_image_reads_the_image_at_the_moved_points() -> None:
    bend = spline(5, weights=0.005)
    at = torch.tensor([[[0.2, -0.3]]]).expand(2, 1, 2)
    grid = make_grid(128, 128, "half_pixel")
    # A blob at T(z) in X is found at z in Y = X(T).
    image = torch.cat([gaussian_heatmap(bend(at)[b : b + 1], grid, 0.002) for b in range(2)])
    warped = bend.warp(image, "half_pixel")
    centre = (warped[..., None] * grid).sum((2, 3)) / warped.sum((2, 3))[..., None]
    # The blob is bent as well, so its centre of mass is only nearly its centre.
    assert (centre - at).abs().max() < 0.02


def test_without_weights_it_is_the_identity_and_outside_is_reflected() -> None:
    still = random_thin_plate_spline(1, torch.Generator().manual_seed(0), 0, 0)
    image = torch.rand(1, 1, 32, 32)
    assert torch.allclose(still.warp(image, "half_pixel"), image, atol=1e-6)
    far = ThinPlateSpline(still.affine + torch.tensor([0, 0, 0.5]), still.weights, still.centres)
    ones = torch.ones(1, 1, 32, 32)
    assert torch.allclose(far.warp(ones, "half_pixel"), ones)


def test_draws_follow_the_generator_and_the_sizes() -> None:
    one, two = (spline(7, batch=400, weights=0.005) for _ in range(2))
    assert torch.equal(one.affine, two.affine) and torch.equal(one.weights, two.weights)
    offset = one.affine - torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert abs(float(offset.std()) - 0.05) < 0.005
    assert abs(float(one.weights.std()) - 0.005) < 0.0002
