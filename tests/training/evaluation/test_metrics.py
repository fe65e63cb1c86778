"""The measures, against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sonomime.training.evaluation import metrics
from sonomime.training.models import geometry

from .fakes import speckle


def test_mask_is_where_the_mean_exceeds_three_hundredths() -> None:
    frames = np.zeros((4, 2, 2), np.uint8)
    frames[:, 0, 0] = 7  # .027
    frames[:, 0, 1] = 8  # .031
    frames[0, 1, 0] = 255  # .25 on average
    assert metrics.clip_mask(frames).tolist() == [[False, True], [True, False]]


def test_flow_that_does_not_lead_home_or_leaves_the_picture_is_inconsistent() -> None:
    forward = np.zeros((8, 8, 2), np.float32)
    assert metrics.consistent_pixels(forward, forward).all()
    forward[..., 0] = 5
    assert not metrics.consistent_pixels(forward, np.zeros_like(forward)).any()
    consistent = metrics.consistent_pixels(forward, -forward)
    assert consistent[:, :3].all() and not consistent[:, 3:].any()


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("half_pixel", (24, 12)),
        ("half_pixel", (64, 64)),
        ("fomm_aligned", (64, 64)),
        ("fomm_unaligned", (64, 64)),
    ],
)
def test_warp_by_deformation_is_the_models_own_warp(kind: str, size: tuple[int, int]) -> None:
    source = metrics.to_float(speckle(64))
    noise = np.random.default_rng(3).normal(0, 0.15, (*size, 2)).astype(np.float32)
    deformation = geometry.make_grid(*size, kind).numpy() + noise
    ours = metrics.warp_by_flow(source, metrics.deformation_flow(deformation, 64, 64, kind))
    tensors = torch.from_numpy(source)[None, None], torch.from_numpy(deformation)[None]
    theirs = geometry.warp(*tensors, kind)[0, 0].numpy()
    assert np.abs(ours - theirs).max() < 0.04  # OpenCV places samples on a grid of 1/32 pixel
    assert np.abs(ours - theirs).mean() < 0.003


@pytest.mark.parametrize("kind", ["half_pixel", "fomm_aligned", "fomm_unaligned"])
def test_flow_of_a_picture_is_that_of_the_feature_that_is_warped(kind: str) -> None:
    """A ramp of columns says where in the picture a small feature of it reads, wherever it reads
    inside."""
    column, row = np.moveaxis(metrics.pixel_grid(64, 64), -1, 0)
    bend = np.stack([np.sin(row / 10), np.cos(column / 10)], -1) * np.float32(0.05)
    deformation = geometry.make_grid(64, 64, kind) + torch.from_numpy(bend)
    feature = torch.from_numpy(4 * column + 1.5)  # the middle of 4 x 4 pixels
    read = geometry.warp(feature[None, None], deformation[None], kind)[0, 0].numpy()
    found = metrics.pixel_grid(256, 256) + metrics.deformation_flow(
        deformation.numpy(), 256, 256, kind
    )
    apart = found[..., 0].reshape(64, 4, 64, 4).mean((1, 3)) - read
    assert np.abs(apart[4:-4, 4:-4]).max() < 0.02


def test_psnr_and_ssim_follow_their_formulas() -> None:
    x, y = np.full((16, 16), 0.6, np.float32), np.full((16, 16), 0.2, np.float32)
    assert metrics.psnr(y, x) == pytest.approx(-20 * math.log10(0.4), abs=1e-4)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(y, x) == pytest.approx(expected, rel=1e-3)


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    """Version 0.26.0: peak_signal_noise_ratio; the mean of structural_similarity's whole map,
    gaussian_weights, sigma 1.5, use_sample_covariance=False. It pads in another way, hence the
    black border."""
    draw = np.random.default_rng(5)
    x, y = np.zeros((2, 72, 72), np.float32)
    x[12:-12, 12:-12] = draw.uniform(0, 1, (48, 48))
    y[12:-12, 12:-12] = np.clip(x[12:-12, 12:-12] + draw.normal(0, 0.2, (48, 48)), 0, 1)
    assert metrics.psnr(y, x) == pytest.approx(18.442316106571145, rel=1e-6)
    assert metrics.ssim(y, x) == pytest.approx(0.9154427601793489, rel=1e-6)


def test_ncc_ignores_gain_and_level_and_knows_its_sign() -> None:
    a = metrics.to_float(speckle(seed=1))
    mask = np.ones(a.shape, bool)
    assert metrics.ncc(a, 2 - 3 * a, mask) == pytest.approx(-1)
    assert metrics.ncc(a, np.zeros_like(a), mask) == 0
    assert math.isnan(metrics.ncc(a, a, np.zeros_like(mask)))


def test_spread_agrees_with_numpy_however_it_is_fed() -> None:
    a, b = np.random.default_rng(0).normal(1, 2, (2, 40)).astype(np.float32)
    sums = metrics.moments(a[:3], b[:3]) + metrics.moments(a[3:], b[3:])
    wanted = a.std() / b.std(), np.corrcoef(a, b)[0, 1]
    assert metrics.spread_ratio(sums) == pytest.approx(wanted, abs=1e-4)
    still = np.zeros_like(b)
    assert metrics.spread_ratio(metrics.moments(still, b)) == (0, 0)
    for nothing in (np.zeros(6), metrics.moments(b, still)):
        assert np.isnan(metrics.spread_ratio(nothing)).all()
