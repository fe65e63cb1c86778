"""Sizes as in METHOD; networks, motion transfer and One-Euro smoothing do what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import SMALL, lively_checkpoint, noise
from torch import Tensor, nn

from sonomime.training.config import DiscriminatorConfig, KeypointConfig
from sonomime.training.config_file import load_config
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.image_losses import Discriminator
from sonomime.training.models.keypoints.background import Background
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.models.keypoints.motion import (
    KeypointDetector,
    Keypoints,
    Motion,
    Up,
    local_motions,
)
from sonomime.training.models.keypoints.stages import transfer
from sonomime.training.models.one_euro import one_euro


def keypoints(batch: int, count: int, seed: int) -> Keypoints:
    spread = noise(batch, count, 2, 2, seed=seed + 50) - 0.5
    return Keypoints(noise(batch, count, 2, seed=seed) * 1.6 - 0.8, torch.eye(2) + spread)


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("preset", "override", "detector", "generator"),
    [
        ("fomm", "model.channels=3", 14_215_368, 45_575_391),
        ("ours-ptg", "model.generator.bottleneck=split", 14_225_496, 53_884_540),
    ],
)
def test_parameter_counts_of_method(
    preset: str, override: str, detector: int, generator: int
) -> None:
    with torch.device("meta"):
        model = AnimationModel(load_config(preset, [override]).model)
        assert parameters(Discriminator(DiscriminatorConfig(), 3)) == 2_758_849
        plain = DiscriminatorConfig(spectral_norm=False)
        assert parameters(Discriminator(plain, 3)) == 2_758_849
    assert parameters(model.keypoint_detector) == detector
    assert parameters(model.dense_motion, model.generator) == generator
    assert sum(map(parameters, model.networks())) == parameters(model)


# -- keypoint detector -----------------------------------------------------------------------------


@pytest.mark.parametrize(("geometry", "side"), [("half_pixel", 64), ("fomm_aligned", 58)])
def test_a_blob_in_the_heatmap_is_found_where_it_is_also_in_autocast(
    geometry: str, side: int
) -> None:
    detector = KeypointDetector(KeypointConfig(1, 1, width=2, depth=1), 1, geometry).eval()
    image = noise(1, 1, 256, 256)
    assert detector.heatmap(detector.hourglass(detector.down(image))).shape == (1, 2, side, side)
    assert torch.allclose(detector(image).jacobian, torch.eye(2), atol=1e-6), "at the start"
    at = torch.tensor([[0.3, -0.1], [-0.62, 0.55]])
    away = (make_grid(side, side, geometry) - at[:, None, None]).square().sum(-1)
    field = torch.tensor([1.5, 0.2, -0.3, 0.5, -0.1, 0.2, 0.3, 0.4]).view(1, 8, 1, 1)
    maps = field.expand(1, 8, side, side)
    with torch.autocast("cpu", torch.bfloat16):
        found = detector.read(detector.normalise(-away[None] * 50 * detector.temperature), maps)
    assert (found.value - at).abs().max() < 1e-4
    assert torch.allclose(found.jacobian, field.view(2, 2, 2), atol=1e-5)


# -- dense motion ----------------------------------------------------------------------------------


def test_local_motions_keep_their_numbers_in_autocast() -> None:
    """Their formulas are those of the kernels and of the graphs' functions, which have tests."""
    grid, points = make_grid(6, 6, "half_pixel"), (keypoints(2, 3, 1), keypoints(2, 3, 2))
    with torch.autocast("cpu", torch.bfloat16):
        motions = local_motions(*points, grid)
    assert torch.equal(motions, local_motions(*points, grid))


def test_the_backgrounds_map_keeps_its_numbers_in_autocast() -> None:
    """bfloat16 has no number between 1 and 1.0078: a pixel of 256 at the border."""
    network, images = Background(4, 1).eval(), noise(2, 1, 1, 32, 32)
    with torch.no_grad():
        network.affine.bias.add_(0.003)
        with torch.autocast("cpu", torch.bfloat16):
            found = network(*images)
    torch.testing.assert_close(found[0], torch.eye(2, 3) + 0.003, rtol=0, atol=1e-6)


# -- generators and discriminator ------------------------------------------------------------------


@pytest.mark.parametrize("fusion", ["pixel", "logit"])
@torch.no_grad()
def test_prediction_is_content_and_texture_and_hides_what_is_occluded(fusion: str) -> None:
    model = lively_checkpoint("ours-pt", (*SMALL, f"model.generator.fusion={fusion}")).model()
    feature = model.generator.encode(noise(2, 1, 128, 128))
    still = make_grid(32, 32, "half_pixel").expand(2, -1, -1, -1)
    shown, hidden = (
        model.generator.decode(feature, Motion(still, torch.full((2, 1, 32, 32), seen)))
        for seen in (1.0, 0.0)
    )
    image, content, texture = shown
    assert torch.allclose(image, content + texture, atol=1e-6)
    assert content.min() > 0 and content.max() < 1 and texture.std() > 0
    assert fusion == "pixel" or (image.min() > 0 and image.max() < 1)
    assert torch.equal(hidden.image[0], hidden.image[1])
    assert not torch.equal(shown.image[0], shown.image[1])


def test_discriminator_has_unit_spectral_norm_and_judges_patches() -> None:
    torch.manual_seed(0)
    network = Discriminator(DiscriminatorConfig(width=2, max_features=16), 1)
    for _ in range(60):
        network(noise(1, 1, 64, 64))
    for conv in (*network.convs, network.final):
        norm = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.02)
    score, features = network(noise(1, 1, 256, 256))
    assert score.shape == (1, 1, 26, 26)
    assert [x.shape[-1] for x in features] == [126, 61, 29, 26]


K = 3
FRESH = torch.zeros(1, 1 + 2 * 6 * K)


def points(seed: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.6 * (noise(1, K, 2, 2, seed=seed) - 0.5)
    return Keypoints(noise(1, K, 2, seed=seed + 50) * 2 - 1, jacobian)


def number(value: float) -> Tensor:
    return torch.tensor([value])


def moved(
    *points: Keypoints, controls: tuple[float, ...], state: Tensor = FRESH
) -> tuple[Keypoints, Tensor]:
    """Where the points of source, reference and driving frame lead to, and the next state."""
    given = (tensor for each in points for tensor in each)
    *target, state = transfer(torch.nn.Identity(), *given, *map(number, controls), state).values()
    return Keypoints(*target), state


def test_absolute_and_relative_motion() -> None:
    source, reference, driving = points(0), points(1), points(2)
    found, _ = moved(source, reference, driving, controls=(0, 1.7, 0, 0, 0.1))
    assert all(map(torch.equal, found, driving))
    for scale in (1.0, 0.5):
        found, _ = moved(source, reference, driving, controls=(1, scale, 0, 0, 0.1))
        value = source.value + scale * (driving.value - reference.value)
        jacobian = driving.jacobian @ torch.linalg.inv(reference.jacobian) @ source.jacobian
        torch.testing.assert_close(found.value, value, rtol=0, atol=1e-6)
        torch.testing.assert_close(found.jacobian, jacobian, rtol=1e-5, atol=1e-5)


def scalar_one_euro(xs: list[float], dts: list[float], min_cutoff: float, beta: float) -> list:
    """Written from the paper, one number at a time."""

    def alpha(cutoff: float, dt: float) -> float:
        return 1 / (1 + 1 / (2 * math.pi * cutoff) / dt)

    results = [xs[0]]
    speed = 0.0
    for x, dt in zip(xs[1:], dts[1:], strict=True):
        last = results[-1]
        a = alpha(1.0, dt)
        speed = a * (x - last) / dt + (1 - a) * speed
        a = alpha(min_cutoff + beta * abs(speed), dt)
        results.append(a * x + (1 - a) * last)
    return results


@settings(max_examples=30)
@given(
    steps=st.lists(st.tuples(st.floats(-1, 1), st.floats(0.005, 0.5)), min_size=1, max_size=12),
    min_cutoff=st.floats(0.1, 10),
    beta=st.floats(0, 20),
)
def test_smoothing_is_the_papers(
    steps: list[tuple[float, float]], min_cutoff: float, beta: float
) -> None:
    state, found = torch.zeros(1, 5), []
    for x, dt in steps:
        now = torch.tensor([[x, -x]])
        (smooth,), state = one_euro([now], state, number(min_cutoff), number(beta), number(dt))
        assert smooth[0, 0] == -smooth[0, 1]
        found.append(float(smooth[0, 0]))
    xs, dts = map(list, zip(*steps, strict=True))
    np.testing.assert_allclose(found, scalar_one_euro(xs, dts, min_cutoff, beta), atol=2e-4)


@pytest.mark.parametrize("dt", [0.1, 0.0, -1.0, 1e-9])
@pytest.mark.parametrize("min_cutoff", [0.0, -1.0, 1.0])
def test_no_smoothing_and_impossible_steps(min_cutoff: float, dt: float) -> None:
    state = torch.zeros(1, 5)
    for value in (0.1, 0.9, -0.4):
        x = torch.full((1, 2), value)
        (smooth,), state = one_euro([x], state, number(min_cutoff), number(10.0), number(dt))
        assert torch.isfinite(smooth).all() and torch.isfinite(state).all()
        assert min_cutoff > 0 or torch.equal(smooth, x)
    # Switched on in the middle, it goes on from where the points are.
    (smooth,), _ = one_euro([smooth], state, number(1.0), number(0.0), number(0.1))
    torch.testing.assert_close(smooth, state[:, 1:3])


def test_smoothing_follows_the_driver_not_the_target() -> None:
    """So that a new source or scale does not make the picture glide."""
    source, other, reference, controls = points(0), points(5), points(1), (1, 1, 1.5, 10, 1 / 30)
    _, state = moved(source, reference, reference, controls=controls)
    assert state[0, 0] == 1
    found, _ = moved(other, reference, reference, controls=controls, state=state)
    torch.testing.assert_close(found.value, other.value, rtol=0, atol=1e-6)
    # It has not yet followed the driver where this is now.
    late, _ = moved(other, reference, points(2), controls=controls, state=state)
    flat = torch.cat([part.reshape(1, -1) for part in points(2)], dim=1)
    (calm,), _ = one_euro([flat], state, *map(number, controls[2:]))
    value = calm[:, : 2 * K].view(1, K, 2)
    torch.testing.assert_close(late.value, other.value + value - reference.value)


# -- blocks ----------------------------------------------------------------------------------------


def test_upsampling_in_training_is_exact_with_its_gradients() -> None:
    """In training an up block takes the quick way, in use the plain one."""
    torch.manual_seed(0)
    block = Up(3, 5).eval()
    found = []
    for training in (True, False):
        block.training = training  # the block alone: BatchNorm keeps its statistics
        block.zero_grad()
        x = noise(2, 3, 8, 10).requires_grad_()
        y = block(x)
        (y * noise(*y.shape, seed=1)).sum().backward()
        found.append([y, x.grad, *(p.grad.clone() for p in block.parameters())])
    assert found[0][0].shape == (2, 5, 16, 20)
    for quick, plain in zip(*found, strict=True):
        torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-5)
