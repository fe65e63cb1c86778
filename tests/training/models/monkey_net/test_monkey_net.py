"""Monkey-Net: sizes as in METHOD, keypoints and motion that do what they say, its losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from lively import SMALL, noise, small_config
from torch import nn

from sonomime.training.config_file import load_config
from sonomime.training.models.families import family_of
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.image_losses import Discriminator
from sonomime.training.models.monkey_net.family import transfer
from sonomime.training.models.monkey_net.model import (
    NARROWEST,
    PEAK,
    Keypoints,
    MonkeyNet,
    blobs,
    heatmaps,
    quarter,
)
from sonomime.training.trainer import Trainer

from ...small_runs import pairs_of


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("channels", "counts"),
    [(3, (14_132_728, 80_629_691, 1_719_489)), (1, (14_131_396, 80_600_083, 1_717_441))],
)
def test_parameter_counts_of_method(channels: int, counts: tuple[int, ...]) -> None:
    settings = load_config("monkey-net", [f"model.channels={channels}"]).model
    family = family_of(settings)
    with torch.device("meta"):
        model = MonkeyNet(settings)
        judge = Discriminator(settings.discriminator, family.judged_channels(settings))
    found = parameters(model.keypoint_detector), parameters(model.dense_motion, model.generator)
    assert (*found, parameters(judge)) == counts


def test_the_discriminator_judges_as_method_says() -> None:
    settings = load_config("monkey-net", ["model.discriminator.width=2"]).model
    score, features = Discriminator(settings.discriminator, 11)(noise(1, 11, 256, 256))
    assert score.shape == (1, 1, 13, 13)
    assert [x.shape[-1] for x in features] == [126, 61, 29, 13]


def test_the_image_is_read_at_block_centres() -> None:
    x = (2 * torch.arange(64.0) + 1) / 64 - 1
    small = quarter(x.expand(1, 1, 64, 64))
    torch.testing.assert_close(small[0, 0, 0], (2 * torch.arange(16.0) + 1) / 16 - 1)


def test_mean_and_covariance_of_a_blob_are_its_own() -> None:
    grid = make_grid(64, 64, "half_pixel")
    wide = torch.tensor([[0.03, 0.01], [0.01, 0.02]])
    sharp = torch.tensor([[4e-4, 0.0], [0.0, 4e-4]])  # both ways narrower than is allowed
    given = Keypoints(torch.tensor([[[0.2, -0.3], [-0.4, 0.1]]]), torch.stack([wide, sharp])[None])
    maps = heatmaps(given, grid)
    assert maps.amax() == pytest.approx(PEAK, rel=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = blobs(maps / maps.sum(dim=(2, 3), keepdim=True))
    torch.testing.assert_close(found.value, given.value, rtol=0, atol=2e-3)
    torch.testing.assert_close(found.covariance[0, 0], wide, rtol=0.05, atol=5e-4)
    narrow = torch.linalg.svdvals(found.covariance[0, 1])
    assert narrow[1] == pytest.approx(NARROWEST, rel=0.02)


def test_smoothed_covariances_stay_covariances() -> None:
    """One-Euro smooths element by element, each at its own rate: a long blob that turns would get a
    negative variance, and its heatmap would be infinite."""
    count = 500
    turn = math.pi * noise(count)
    across = torch.stack([turn.cos(), turn.sin()], dim=-1)
    along = torch.stack([-turn.sin(), turn.cos()], dim=-1)
    long, narrow = (x[:, :, None] * x[:, None, :] for x in (along, across))
    covariance = (0.5 * long + NARROWEST * narrow)[None]
    point, state = torch.zeros(1, count, 2), torch.zeros(1, 1 + 12 * count)
    controls = [torch.tensor([x]) for x in (0.0, 1.0, 1.5, 10.0, 1 / 30)]
    for shift in range(8):
        turned = covariance.roll(shift, dims=1)
        made = transfer(nn.Identity(), point, point, point, turned, *controls, state)
        value, found, state = made.values()
        heat = heatmaps(Keypoints(value, found), make_grid(32, 32, "half_pixel"))
        assert heat.amax() <= PEAK
        assert torch.linalg.eigvalsh(found).amin() > 0.99 * NARROWEST
        if shift == 0:  # nothing to lift
            torch.testing.assert_close(found, covariance, rtol=0, atol=2e-6)


def test_equal_singular_values_have_a_finite_gradient() -> None:
    logits = torch.zeros(1, 1, 16, 16, requires_grad=True)  # round: both are equal
    found = blobs(logits.flatten(2).softmax(-1).view(1, 1, 16, 16))
    found.covariance.sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


@torch.no_grad()
def test_at_the_start_nothing_but_a_little_moves_and_shifts_move_it() -> None:
    model = MonkeyNet(load_config("monkey-net", SMALL).model).eval()
    image = noise(1, 1, 128, 128)
    source = model.encode(image)
    still = make_grid(32, 32, "half_pixel")
    apart = source.keypoints._replace(value=source.keypoints.value + 0.2)
    moved = model.dense_motion(source.small, source.keypoints, apart).deformation
    # The mask is softmax of (2, 0, ..., 0): of ten shifts by -.2 each weighs 1 / (e^2 + 10).
    wanted = still - 0.2 * 10 / (torch.tensor(2.0).exp() + 10)
    torch.testing.assert_close(moved[0], wanted, rtol=0, atol=1e-5)


def test_keypoints_learn_from_the_discriminators_real_side_too(tmp_path: Path) -> None:
    settings = small_config("monkey-net", "train.precision=fp32")
    trainer = Trainer(settings, lambda step: batch, tmp_path, [], [])
    batch = pairs_of(noise(2, 1, 128, 128), noise(2, 1, 128, 128, seed=1))
    result = trainer.objective(trainer.model, batch, 0, trainer.discriminator)
    assert set(result.losses) == {"reconstruction", "adversarial", "feature_matching"}
    real, fake = result.judged
    pairs = zip(*(trainer.discriminator(x).features for x in (fake, real)), strict=True)
    *upper, deepest = ((f - r).abs().mean().item() for f, r in pairs)
    found = [result.losses[name].item() for name in ("reconstruction", "feature_matching")]
    assert found == pytest.approx([10 * result.l1, 10 * sum(upper) + deepest], rel=1e-4)
    assert real.shape == fake.shape == (2, 1 + 10, 128, 128)
    assert torch.equal(real[:, :1], batch.driving) and torch.equal(real[:, 1:], fake[:, 1:])
    head = trainer.model.keypoint_detector.heatmap.weight
    (gradient,) = torch.autograd.grad(real.sum(), head)
    assert gradient.abs().sum() > 0
