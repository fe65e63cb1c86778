"""The measures, against cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sonomime.training.evaluation import metrics
from sonomime.training.models import geometry

from .fakes import shifted, speckle


def test_mask_is_where_the_mean_exceeds_three_hundredths() -> None:
    frames = np.zeros((4, 2, 2), np.uint8)
    frames[:, 0, 0] = 7  # .027
    frames[:, 0, 1] = 8  # .031
    frames[0, 1, 0] = 255  # .25 on average
    assert metrics.clip_mask(frames).tolist() == [[False, True], [True, False]]


def test_flow_finds_a_known_translation_and_warps_by_it() -> None:
    there, move = speckle(128), (2.5, -1.5)
    here = shifted(there, *move)
    forward, backward = metrics.dis(here, there), metrics.dis(there, here)
    inner = np.s_[16:-16, 16:-16]
    # here(p) is there(p + F(p)), so F is minus the move.
    assert np.abs(np.median(forward[inner].reshape(-1, 2), axis=0) + move).max() < 0.1
    assert metrics.consistent_pixels(forward, backward)[inner].mean() > 0.95
    warped = metrics.warp_by_flow(there, forward)
    before = np.abs(there[inner].astype(int) - here[inner]).mean()
    assert np.abs(warped[inner].astype(int) - here[inner]).mean() < 0.2 * before


def test_flow_that_does_not_lead_home_or_leaves_the_picture_is_inconsistent() -> None:
    forward = np.zeros((8, 8, 2), np.float32)
    assert metrics.consistent_pixels(forward, forward).all()
    forward[..., 0] = 5
    backward = np.zeros((8, 8, 2), np.float32)
    assert not metrics.consistent_pixels(forward, backward).any()
    consistent = metrics.consistent_pixels(forward, -forward)
    assert consistent[:, :3].all() and not consistent[:, 3:].any()


@pytest.mark.parametrize("kind", ["half_pixel", "fomm"])
def test_warp_by_deformation_is_the_models_own_warp(kind: str) -> None:
    size = 24, 12
    generator = np.random.default_rng(3)
    source = speckle(64)
    grid = geometry.make_grid(*size, kind).numpy()
    deformation = grid + generator.normal(0, 0.15, (*size, 2)).astype(np.float32)
    flow = metrics.deformation_flow(deformation, 64, 64, kind)
    ours = metrics.warp_by_flow(metrics.to_float(source), flow)
    tensor = torch.from_numpy(metrics.to_float(source))[None, None]
    theirs = geometry.warp(tensor, torch.from_numpy(deformation)[None], kind)[0, 0].numpy()
    assert np.abs(ours - theirs).max() < 0.04  # OpenCV places samples on a grid of 1/32 pixel
    assert np.abs(ours - theirs).mean() < 0.003


def test_psnr_and_ssim_follow_their_formulas() -> None:
    x, y = np.full((16, 16), 0.6, np.float32), np.full((16, 16), 0.2, np.float32)
    assert metrics.psnr(y, x) == pytest.approx(-20 * math.log10(0.4), abs=1e-4)
    assert metrics.psnr(x, x) == pytest.approx(100)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert metrics.ssim(y, x) == pytest.approx(expected, rel=1e-3)


def test_ncc_ignores_gain_and_level_and_knows_its_sign() -> None:
    a = metrics.to_float(speckle(seed=1))
    mask = np.ones(a.shape, bool)
    assert metrics.ncc(a, 3 * a + 2, mask) == pytest.approx(1)
    assert metrics.ncc(a, -a, mask) == pytest.approx(-1)
    assert abs(metrics.ncc(a, metrics.to_float(speckle(seed=2)), mask)) < 0.1
    assert metrics.ncc(a, np.zeros_like(a), mask) == 0
    assert math.isnan(metrics.ncc(a, a, np.zeros_like(mask)))


def test_spread_agrees_with_numpy_however_it_is_fed() -> None:
    a, b = np.random.default_rng(0).normal(1, 2, (2, 40)).astype(np.float32)
    spread = metrics.Spread()
    for part in (slice(0, 3), slice(3, 40)):
        spread.add(a[part], b[part])
    assert spread.ratio() == pytest.approx(a.std() / b.std(), rel=1e-4)
    assert spread.correlation() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-4)


def test_spread_of_nothing_and_of_stillness() -> None:
    spread = metrics.Spread()
    assert math.isnan(spread.ratio()) and math.isnan(spread.correlation())
    still, moving = np.zeros(4, np.float32), np.arange(4, dtype=np.float32)
    spread.add(still, moving)
    assert spread.ratio() == 0 and spread.correlation() == 0
    backwards = metrics.Spread()
    backwards.add(moving, still)
    assert math.isnan(backwards.ratio()) and math.isnan(backwards.correlation())
