"""Splines and losses against formulas written here with numpy, and where their gradients go."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively import lively_model, noise, small_config
from numpy.typing import NDArray
from torch import Tensor

from sonomime.training.config import DiscriminatorConfig
from sonomime.training.models import image_losses
from sonomime.training.models.geometry import gaussian_heatmap, make_grid
from sonomime.training.models.image_losses import Discriminator, Judgement
from sonomime.training.models.keypoints import objective as losses
from sonomime.training.models.keypoints.motion import Keypoints
from sonomime.training.models.keypoints.objective import (
    KeypointObjective,
    ThinPlateSpline,
    random_thin_plate_spline,
)

from ...small_runs import pairs_of


def array(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().numpy()


def near(found: Tensor, expected: float) -> bool:
    value = float(found.detach())
    return found.shape == () and value == pytest.approx(expected, rel=1e-4, abs=1e-7)


# -- thin-plate splines and equivariance -----------------------------------------------------------


def spline(seed: int = 0, batch: int = 2, weights: float = 0.02) -> ThinPlateSpline:
    return random_thin_plate_spline(batch, torch.Generator().manual_seed(seed), 0.05, weights)


def test_a_spline_and_its_jacobian_are_their_formulas_also_in_autocast() -> None:
    bend, u = spline(weights=0.05), noise(2, 9, 2) * 2 - 1
    u[0, 0] = bend.centres[7]  # at a control point itself
    with torch.autocast("cpu", torch.bfloat16):
        found, slope = array(bend(u)), bend.jacobian(u)
    centres = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5)), -1).reshape(-1, 2)
    affine, weights = array(bend.affine), array(bend.weights)
    for b, n in np.ndindex(2, 9):
        at = array(u)[b, n]
        r = np.hypot(*(at - centres).T)
        expected = affine[b] @ [*at, 1] + (r**2 * np.log(r + 1e-6)) @ weights[b]
        assert np.abs(found[b, n] - expected).max() < 1e-5
    every = torch.autograd.functional.jacobian(bend, u)  # (2, 9, 2, 2, 9, 2)
    assert (slope - torch.einsum("bnobni->bnoi", every)).abs().max() < 1e-4
    u.requires_grad_()
    (bend(u).sum() + bend.jacobian(u).sum()).backward()
    assert u.grad is not None and u.grad.isfinite().all()


@pytest.mark.parametrize(("geometry", "corners"), [("half_pixel", False), ("fomm_aligned", True)])
def test_a_bent_image_is_reflected_where_its_geometry_ends(geometry: str, corners: bool) -> None:
    image, bend = torch.rand(2, 1, 32, 48), spline(5, weights=0.02)
    where = bend(make_grid(32, 48, geometry).view(1, -1, 2).expand(2, -1, -1)).view(2, 32, 48, 2)
    assert where.abs().max() > 1.1
    wanted = F.grid_sample(image, where, padding_mode="reflection", align_corners=corners)
    assert (bend.warp(image, geometry) - wanted).abs().max() < 1e-4


def test_a_bent_image_reads_the_image_at_the_moved_points() -> None:
    bend = spline(5, weights=0.005)
    at = torch.tensor([[[0.2, -0.3]]]).expand(2, 1, 2)
    grid = make_grid(128, 128, "half_pixel")
    # A blob at T(z) in X is found at z in Y = X(T).
    image = torch.cat([gaussian_heatmap(bend(at)[b : b + 1], grid, 0.002) for b in range(2)])
    warped = bend.warp(image, "half_pixel")
    centre = (warped[..., None] * grid).sum((2, 3)) / warped.sum((2, 3))[..., None]
    # The blob is bent as well, so its centre of mass is only nearly its centre.
    assert (centre - at).abs().max() < 0.02
    still = random_thin_plate_spline(1, torch.Generator(), 0, 0)
    assert torch.allclose(still.warp(image[:1], "half_pixel"), image[:1], atol=1e-6)
    far = ThinPlateSpline(still.affine + torch.tensor([0, 0, 0.5]), still.weights, still.centres)
    ones = torch.ones(1, 1, 32, 32)
    assert torch.allclose(far.warp(ones, "half_pixel"), ones), "outside is reflected"
    one, two = (spline(7, batch=400, weights=0.005) for _ in range(2))
    assert all(map(torch.equal, one, two)), "the generator alone decides"
    assert float((one.affine - still.affine).std()) == pytest.approx(0.05, rel=0.1)
    assert float(one.weights.std()) == pytest.approx(0.005, rel=0.04)


def local_frames(seed: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.4 * (noise(2, 4, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(2, 4, 2, seed=seed + 50) * 1.6 - 0.8, jacobian)


def test_equivariance_is_its_formula_also_in_autocast_and_reaches_both_frames() -> None:
    x, y = (Keypoints(*(t.requires_grad_() for t in local_frames(s))) for s in (1, 2))
    bend = spline()
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.equivariance_value(x, y, bend)
        jacobian = losses.equivariance_jacobian(x, y, bend)
    assert near(value, np.abs(array(x.value) - array(bend(y.value))).mean())
    slope = bend.jacobian(y.value)
    chain = np.linalg.inv(array(x.jacobian)) @ array(slope) @ array(y.jacobian)
    assert near(jacobian, np.abs(np.eye(2) - chain).mean())
    (value + jacobian).backward()
    for part in (*x, *y):
        assert part.grad is not None and part.grad.isfinite().all() and part.grad.abs().sum() > 0
    # Y(z) = X(T(z)): what is at u in Y is at T(u) in X, and its frame is turned by dT/du.
    same = Keypoints(bend(y.value), slope @ y.jacobian)
    assert losses.equivariance_value(same, y, bend) < 1e-6
    assert losses.equivariance_jacobian(same, y, bend) < 1e-5


# -- keypoint supervision --------------------------------------------------------------------------

SEEN = torch.tensor([[True, False], [True, True], [False, False]])


def heat(point: NDArray[np.float64]) -> NDArray[np.float64]:
    line = (2 * np.arange(32) + 1) / 32 - 1
    return np.exp(-np.add.outer((line - point[1]) ** 2, (line - point[0]) ** 2) / (2 * 0.1))


def test_supervision_is_the_mean_over_labelled_points() -> None:
    predicted, labelled = (noise(3, 2, 2) - 0.5).requires_grad_(), noise(3, 2, 2, seed=1) - 0.5
    pairs = zip(array(predicted)[SEEN.numpy()], array(labelled)[SEEN.numpy()], strict=True)
    wanted = np.mean([((heat(p) - heat(q)) ** 2).mean() for p, q in pairs])
    marked = torch.where(SEEN[..., None], labelled, float("nan"))
    found = losses.keypoint_supervision(predicted, marked, SEEN, 32, 0.1, "half_pixel")
    assert near(found, float(wanted))
    nothing = losses.keypoint_supervision(predicted, marked, SEEN & False, 32, 0.1, "half_pixel")
    assert nothing == 0
    (found + nothing).backward()
    assert predicted.grad is not None
    assert predicted.grad[~SEEN].abs().max() == 0 and predicted.grad[SEEN].abs().min() > 0
    downhill = -predicted.grad * (labelled - predicted.detach())
    assert (downhill.sum(-1)[SEEN] > 0).all()  # towards the label


# -- images ----------------------------------------------------------------------------------------


def test_sharpness_sees_blur_not_brightness_and_a_grid_does_not_pay_for_speckle() -> None:
    white = noise(1, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(white, 5, 1, 2)
    assert image_losses.sharpness(white, white) == 0
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    brighter = image_losses.sharpness((white + 0.1)[inside], white[inside])
    assert image_losses.sharpness(blurred[inside], white[inside]) > 5 * brighter

    real = torch.nn.functional.avg_pool2d(white, 3, 1, 1)[inside]
    blurred = torch.nn.functional.avg_pool2d(real, 7, 1, 3)
    grid = torch.ones_like(real)
    grid[..., 0::2, 1::2] = grid[..., 1::2, 0::2] = -1
    missing = (real.var() - blurred.var()).sqrt()
    faked = blurred + missing * grid  # as much energy as the real one
    assert image_losses.sharpness(faked, real) > image_losses.sharpness(blurred, real)


def test_a_box_is_average_pooling_and_so_is_its_gradient() -> None:
    image = noise(2, 3, 9, 12).requires_grad_()
    weights = noise(2, 3, 9, 12)
    slopes = []
    for boxed in (image_losses.box(image), F.avg_pool2d(image, 3, 1, 1)):
        slopes += torch.autograd.grad((boxed * weights).sum(), image)
    torch.testing.assert_close(image_losses.box(image), F.avg_pool2d(image, 3, 1, 1))
    torch.testing.assert_close(*slopes)


# -- adversarial, and all of them ------------------------------------------------------------------


def test_adversarial_losses_are_their_formulas() -> None:
    scores, one, two = (noise(2, 2, *shape).requires_grad_() for shape in ((5,), (8, 8), (4,)))
    real, fake = (Judgement(scores[i], (one[i], two[i])) for i in range(2))
    x, y = array(scores)
    assert near(image_losses.lsgan_generator(fake), ((y - 1) ** 2).mean())
    assert near(image_losses.lsgan_discriminator(real, fake), ((x - 1) ** 2).mean() + (y**2).mean())
    loss = image_losses.feature_matching(fake, real)
    assert near(loss, sum(np.abs(b - a).mean() for a, b in map(array, (one, two))))
    loss.backward()
    for features in (one, two):  # the real side is detached
        assert features.grad is not None
        assert features.grad[1].abs().sum() > 0 and features.grad[0].abs().sum() == 0


@pytest.mark.parametrize("preset", ["fomm", "ours-ptg", "onuvs"])
def test_an_objective_weighs_its_losses_and_gradients_reach_every_parameter(preset: str) -> None:
    config = small_config(preset, "loss.reconstruction=3")
    model, labels = lively_model(config).requires_grad_(True), config.model.keypoints.supervised
    source, driving = noise(2, 2, 1, 128, 128)
    batch = pairs_of(source, driving, labels, seen=True)
    judge = Discriminator(DiscriminatorConfig(width=2, max_features=8), 1).requires_grad_(False)
    objective = KeypointObjective(config)
    result = objective(model, batch, 0, judge)
    assert "perceptual_network" in objective.remarks[0]
    wanted = {"equivariance_value", "equivariance_jacobian", "reconstruction", "adversarial"}
    own = {"supervision", "content"} if preset != "fomm" else set()
    assert result.losses.keys() == wanted | own | {"feature_matching"}
    levels = zip(*map(objective.pyramid, (result.prediction, driving)), strict=True)
    l1 = [float((found - real).detach().abs().mean()) for found, real in levels]
    assert len(l1) == 4 and near(result.losses["reconstruction"], 3 * sum(l1))
    torch.stack(list(result.losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert all(p.grad is None for p in judge.parameters())
