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


def spline() -> ThinPlateSpline:
    return random_thin_plate_spline(2, torch.Generator().manual_seed(0), 0.05, 0.02)


def local_frames(seed: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.4 * (noise(2, 4, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(2, 4, 2, seed=seed + 50) * 1.6 - 0.8, jacobian)


def test_exactly_equivariant_keypoints_cost_nothing() -> None:
    # Y(z) = X(T(z)): what is at u in Y is at T(u) in X, and its frame is turned by dT/du.
    bend, found_in_y = spline(), local_frames(1)
    slope = bend.jacobian(found_in_y.value)
    found_in_x = Keypoints(bend(found_in_y.value), slope @ found_in_y.jacobian)
    assert losses.equivariance_value(found_in_x, found_in_y, bend) < 1e-6
    assert losses.equivariance_jacobian(found_in_x, found_in_y, bend) < 1e-5


def test_equivariance_is_its_formula_also_in_autocast_and_reaches_both_frames() -> None:
    x, y = (Keypoints(*(t.requires_grad_() for t in local_frames(s))) for s in (1, 2))
    bend = spline()
    with torch.autocast("cpu", torch.bfloat16):
        value = losses.equivariance_value(x, y, bend)
        jacobian = losses.equivariance_jacobian(x, y, bend)
    assert near(value, np.abs(array(x.value) - array(bend(y.value))).mean())
    slope = array(bend.jacobian(y.value))
    chain = np.linalg.inv(array(x.jacobian)) @ slope @ array(y.jacobian)
    assert near(jacobian, np.abs(np.eye(2) - chain).mean())
    (value + jacobian).backward()
    for part in (*x, *y):
        assert part.grad is not None and part.grad.isfinite().all() and part.grad.abs().sum() > 0


# -- keypoint supervision --------------------------------------------------------------------------

SEEN = torch.tensor([[True, False], [True, True], [False, False]])


def heat(point: NDArray[np.float64]) -> NDArray[np.float64]:
    line = (2 * np.arange(32) + 1) / 32 - 1
    x, y = np.meshgrid(line, line)
    return np.exp(-((x - point[0]) ** 2 + (y - point[1]) ** 2) / (2 * 0.1))


@pytest.mark.parametrize("unlabelled", [float("nan"), float("inf"), 7.0])
def test_supervision_is_the_mean_over_labelled_points(unlabelled: float) -> None:
    predicted, labelled = (noise(3, 2, 2) - 0.5).requires_grad_(), noise(3, 2, 2, seed=1) - 0.5
    pairs = zip(array(predicted)[SEEN.numpy()], array(labelled)[SEEN.numpy()], strict=True)
    wanted = np.mean([((heat(p) - heat(q)) ** 2).mean() for p, q in pairs])
    marked = torch.where(SEEN[..., None], labelled, torch.tensor(unlabelled))
    found = losses.keypoint_supervision(predicted, marked, SEEN, 32, 0.1, "half_pixel")
    assert near(found, float(wanted))
    found.backward()
    assert predicted.grad is not None
    assert predicted.grad[~SEEN].abs().max() == 0 and predicted.grad[SEEN].abs().min() > 0
    downhill = -predicted.grad * (labelled - predicted.detach())
    assert (downhill.sum(-1)[SEEN] > 0).all()  # towards the label


def test_a_batch_without_labels_costs_nothing_and_breaks_nothing() -> None:
    predicted = (noise(2, 2, 2) - 0.5).requires_grad_()
    nothing = torch.full((2, 2, 2), float("nan"))
    hidden = torch.zeros(2, 2, dtype=torch.bool)
    loss = losses.keypoint_supervision(predicted, nothing, hidden, 16, 0.1, "half_pixel")
    loss.backward()
    assert loss == 0 and predicted.grad is not None and predicted.grad.abs().max() == 0


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
def test_pyramid_halves_the_size_and_its_l1_sums_the_means(geometry: str) -> None:
    pyramid = image_losses.Pyramid(1, 4, geometry)
    images = [noise(2, 1, 64, 64, seed=k) for k in (1, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        one, two = map(pyramid, images)
    assert [level.shape[-1] for level in one] == [64, 32, 16, 8] and one[0] is images[0]
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
    real = torch.nn.functional.avg_pool2d(noise(1, 1, 64, 64), 3, 1, 1)[..., 8:-8, 8:-8]
    blurred = torch.nn.functional.avg_pool2d(real, 7, 1, 3)
    grid = torch.ones_like(real)
    grid[..., 0::2, 1::2] = grid[..., 1::2, 0::2] = -1
    missing = (real.var() - blurred.var()).sqrt()
    faked = blurred + missing * grid  # as much energy as the real one
    assert image_losses.sharpness(faked, real) > image_losses.sharpness(blurred, real)


# -- adversarial -----------------------------------------------------------------------------------


def judgement(seed: int) -> Judgement:
    parts = [noise(2, 1, 5, 5, seed=seed) * 2 - 0.5]
    parts += [noise(2, 3, s, s, seed=seed + s) for s in (8, 4)]
    score, *features = (part.requires_grad_() for part in parts)
    return Judgement(score, tuple(features))


def test_adversarial_losses_are_their_formulas() -> None:
    real, fake = judgement(1), judgement(2)
    x, y = array(real.score), array(fake.score)
    assert near(image_losses.lsgan_generator(fake), ((y - 1) ** 2).mean())
    assert near(image_losses.lsgan_discriminator(real, fake), ((x - 1) ** 2).mean() + (y**2).mean())
    pairs = list(zip(fake.features, real.features, strict=True))
    loss = image_losses.feature_matching(fake, real)
    assert near(loss, float(sum(np.abs(array(f) - array(r)).mean() for f, r in pairs)))
    loss.backward()
    assert all(f.grad is not None and f.grad.abs().sum() > 0 for f in fake.features)
    assert all(r.grad is None for r in real.features)  # the real side is detached


def test_each_step_leaves_the_other_network_alone() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=8), 1)
    image, real = noise(1, 1, 64, 64).requires_grad_(), noise(1, 1, 64, 64, seed=1)
    network.requires_grad_(False)
    fake = network(image)
    matching = image_losses.feature_matching(fake, network(real))
    (image_losses.lsgan_generator(fake) + matching).backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert all(p.grad is None for p in network.parameters())
    image.grad = None
    network.requires_grad_(True)
    image_losses.lsgan_discriminator(network(real), network(image.detach())).backward()
    assert image.grad is None
    assert all(p.grad is not None for n, p in network.named_parameters() if "norm" not in n)
