"""Each loss against a formula written here with numpy, and where its gradient goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from sonomime.training.config import DiscriminatorConfig
from sonomime.training.models import image_losses
from sonomime.training.models.discriminator import Discriminator, Judgement
from sonomime.training.models.keypoints import losses
from sonomime.training.models.keypoints.keypoint_detector import Keypoints
from sonomime.training.models.keypoints.thin_plate import ThinPlateSpline, random_thin_plate_spline


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def array(x: Tensor) -> NDArray[np.float64]:
    return x.detach().double().numpy()


def near(found: Tensor, expected: float) -> bool:
    value = float(found.detach())
    return found.shape == () and value == pytest.approx(expected, rel=1e-4, abs=1e-7)


# -- equivariance ----------------------------------------------------------------------------------


def spline(batch: int = 2, seed: int = 0) -> ThinPlateSpline:
    return random_thin_plate_spline(batch, torch.Generator().manual_seed(seed), 0.05, 0.02)


def local_frames(seed: int, batch: int = 2, count: int = 4) -> Keypoints:
    jacobian = torch.eye(2) + 0.4 * (noise(batch, count, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(batch, count, 2, seed=seed + 50) * 1.6 - 0.8, jacobian)


def test_exactly_equivariant_keypoints_cost_nothing() -> None:
    # Y(z) = X(T(z)): what is at u in Y is at T(u) in X, and its frame is turned by dT/du.
    bend, found_in_y = spline(), local_frames(1)
    found_in_x = Keypoints(
        bend(found_in_y.value), bend.jacobian(found_in_y.value) @ found_in_y.jacobian
    )
    assert losses.equivariance_value(found_in_x, found_in_y, bend) < 1e-6
    assert losses.equivariance_jacobian(found_in_x, found_in_y, bend) < 1e-5


def test_equivariance_is_its_formula() -> None:
    bend, x, y = spline(), local_frames(1), local_frames(2)
    moved = array(bend(y.value))
    assert near(losses.equivariance_value(x, y, bend), np.abs(array(x.value) - moved).mean())
    slope = array(bend.jacobian(y.value))
    chain = np.linalg.inv(array(x.jacobian)) @ slope @ array(y.jacobian)
    assert near(losses.equivariance_jacobian(x, y, bend), np.abs(np.eye(2) - chain).mean())


def test_equivariance_reaches_both_frames() -> None:
    x, y = (Keypoints(*(t.requires_grad_() for t in local_frames(s))) for s in (1, 2))
    bend = spline()
    total = losses.equivariance_value(x, y, bend) + losses.equivariance_jacobian(x, y, bend)
    total.backward()
    for part in (*x, *y):
        assert part.grad is not None and part.grad.isfinite().all() and part.grad.abs().sum() > 0


def test_equivariance_in_autocast_is_that_of_float32() -> None:
    bend, x, y = spline(), local_frames(1), local_frames(2)
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.equivariance_value(x, y, bend)
        jacobian = losses.equivariance_jacobian(x, y, bend)
    assert torch.equal(value, losses.equivariance_value(x, y, bend))
    assert torch.equal(jacobian, losses.equivariance_jacobian(x, y, bend))


# -- keypoint supervision --------------------------------------------------------------------------


def heat(point: NDArray[np.float64], size: int, variance: float) -> NDArray[np.float64]:
    line = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(line, line)
    return np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * variance))


SEEN = torch.tensor([[True, False], [True, True], [False, False]])


def test_supervision_is_the_mean_over_labelled_points() -> None:
    predicted, labelled = noise(3, 2, 2) - 0.5, noise(3, 2, 2, seed=1) - 0.5
    each = [
        ((heat(array(predicted)[b, p], 32, 0.1) - heat(array(labelled)[b, p], 32, 0.1)) ** 2).mean()
        for b in range(3)
        for p in range(2)
        if SEEN[b, p]
    ]
    found = losses.keypoint_supervision(predicted, labelled, SEEN, 32, 0.1, "half_pixel")
    assert near(found, float(np.mean(each)))


@pytest.mark.parametrize("unlabelled", [float("nan"), float("inf"), 0.0, 7.0])
def test_unlabelled_points_change_nothing(unlabelled: float) -> None:
    labelled = noise(3, 2, 2, seed=1) - 0.5
    marked = torch.where(SEEN[..., None], labelled, torch.tensor(unlabelled))
    grads, values = [], []
    for labels in (labelled, marked):
        predicted = (noise(3, 2, 2) - 0.5).requires_grad_()
        loss = losses.keypoint_supervision(predicted, labels, SEEN, 16, 0.1, "half_pixel")
        loss.backward()
        assert predicted.grad is not None
        values.append(loss.detach())
        grads.append(predicted.grad)
    assert torch.equal(values[0], values[1]) and torch.equal(grads[0], grads[1])
    assert grads[1][~SEEN].abs().max() == 0 and grads[1][SEEN].abs().min() > 0


def test_a_batch_without_labels_costs_nothing_and_breaks_nothing() -> None:
    predicted = (noise(2, 2, 2) - 0.5).requires_grad_()
    nothing = torch.full((2, 2, 2), float("nan"))
    hidden = torch.zeros(2, 2, dtype=torch.bool)
    loss = losses.keypoint_supervision(predicted, nothing, hidden, 16, 0.1, "half_pixel")
    loss.backward()
    assert loss == 0 and predicted.grad is not None and predicted.grad.abs().max() == 0


def test_supervision_draws_the_point_to_its_label() -> None:
    predicted = torch.tensor([[[0.0, 0.0]]], requires_grad=True)
    label = torch.tensor([[[0.4, -0.3]]])
    losses.keypoint_supervision(
        predicted, label, torch.ones(1, 1, dtype=torch.bool), 32, 0.1, "half_pixel"
    ).backward()
    assert predicted.grad is not None
    assert (-predicted.grad * label).min() > 0  # downhill is towards the label


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
def test_pyramid_halves_the_size(geometry: str) -> None:
    pyramid = image_losses.Pyramid(1, 4, geometry)
    image = noise(1, 1, 64, 64)
    levels = pyramid(image)
    assert [level.shape[-1] for level in levels] == [64, 32, 16, 8] and levels[0] is image
    with torch.autocast("cpu", torch.bfloat16):
        again = pyramid(image)
    assert all(torch.equal(a, b) for a, b in zip(levels, again, strict=True))


def test_pyramid_l1_sums_the_means_of_the_scales() -> None:
    one, two = ([noise(2, 1, s, s, seed=k) for s in (16, 8, 4)] for k in (1, 2))
    expected = sum(np.abs(array(a) - array(b)).mean() for a, b in zip(one, two, strict=True))
    assert near(image_losses.pyramid_l1(one, two), float(expected))


def test_sharpness_sees_blur_and_not_brightness() -> None:
    real = noise(1, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(real, 5, 1, 2)
    assert image_losses.sharpness(real, real) == 0
    inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    brighter = image_losses.sharpness((real + 0.1)[inside], real[inside])
    assert image_losses.sharpness(blurred[inside], real[inside]) > 5 * brighter


def test_a_grid_does_not_pay_for_missing_speckle() -> None:
    soft = torch.nn.AvgPool2d(3, 1, 1)
    real = soft(noise(1, 1, 64, 64))[..., 8:-8, 8:-8]
    blurred = torch.nn.functional.avg_pool2d(real, 7, 1, 3)
    grid = torch.ones_like(real)
    grid[..., 0::2, 1::2] = grid[..., 1::2, 0::2] = -1
    missing = (real.var() - blurred.var()).sqrt()
    faked = blurred + missing * grid  # as much energy as the real one
    assert image_losses.sharpness(faked, real) > image_losses.sharpness(blurred, real)


# -- adversarial -----------------------------------------------------------------------------------


def judgement(seed: int, grad: bool = False) -> Judgement:
    parts = [noise(2, 1, 5, 5, seed=seed) * 2 - 0.5]
    parts += [noise(2, 3, s, s, seed=seed + s) for s in (8, 4)]
    score, *features = (part.requires_grad_(grad) for part in parts)
    return Judgement(score, tuple(features))


def test_lsgan_is_its_formula() -> None:
    real, fake = judgement(1), judgement(2)
    x, y = array(real.score), array(fake.score)
    assert near(image_losses.lsgan_generator(fake), ((y - 1) ** 2).mean())
    assert near(image_losses.lsgan_discriminator(real, fake), ((x - 1) ** 2).mean() + (y**2).mean())


def test_feature_matching_is_its_formula_with_the_real_side_detached() -> None:
    real, fake = judgement(1, grad=True), judgement(2, grad=True)
    pairs = list(zip(fake.features, real.features, strict=True))
    expected = sum(np.abs(array(f) - array(r)).mean() for f, r in pairs)
    loss = image_losses.feature_matching(fake, real)
    assert near(loss, float(expected))
    loss.backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in fake.features)
    assert all(r.grad is None for r in real.features)
    assert fake.score.grad is None and real.score.grad is None


def test_the_generators_step_leaves_the_discriminator_alone() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=8), 1).requires_grad_(False)
    image, real = noise(1, 1, 64, 64).requires_grad_(), noise(1, 1, 64, 64, seed=1)
    fake = network(image)
    (
        image_losses.lsgan_generator(fake) + image_losses.feature_matching(fake, network(real))
    ).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())


def test_the_discriminators_step_leaves_the_generator_alone() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=8), 1)
    made = noise(1, 1, 64, 64).requires_grad_()
    real = network(noise(1, 1, 64, 64, seed=1))
    image_losses.lsgan_discriminator(real, network(made.detach())).backward()
    assert made.grad is None
    grads = [p.grad for name, p in network.named_parameters() if "norm" not in name]
    assert all(g is not None for g in grads)
