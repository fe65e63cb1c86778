"""The measures, against cases whose answer is known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sonomime.training.evaluation import metrics
from sonomime.training.models import geometry

from .fakes import shifted, speckle


def test_luma_of_a_grey_picture_in_colour_is_itself() -> None:
    grey = speckle()
    colour = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(metrics.to_levels(colour), grey)
    assert np.array_equal(metrics.to_levels(metrics.to_float(grey)), grey)
    assert metrics.to_float(grey).dtype == np.float32


def test_mask_is_where_the_mean_exceeds_three_hundredths() -> None:
    frames = np.zeros((4, 2, 2), np.uint8)
    frames[:, 0, 0] = 7  # .027
    frames[:, 0, 1] = 8  # .031
    frames[0, 1, 0] = 255  # .25 on average
    assert metrics.clip_mask(frames).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("move", [(3.0, 0.0), (0.0, -4.0), (2.5, 1.5)])
def test_flow_finds_a_known_translation_and_warps_by_it(move: tuple[float, float]) -> None:
    there = speckle(128)
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
@pytest.mark.parametrize("size", [(16, 16), (24, 12)])
def test_warp_by_deformation_is_the_models_own_warp(kind: str, size: tuple[int, int]) -> None:
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


def test_ssim_is_one_for_a_copy_and_falls_with_noise() -> None:
    x = speckle()
    noise = np.random.default_rng(0).normal(0, 20, x.shape)
    noisy = np.clip(x + noise, 0, 255).astype(np.uint8)
    assert metrics.ssim(x, x) == pytest.approx(1)
    assert 0.3 < metrics.ssim(noisy, x) < 0.95


def test_ncc_ignores_gain_and_level_and_knows_its_sign() -> None:
    a = metrics.to_float(speckle(seed=1))
    mask = np.ones(a.shape, bool)
    assert metrics.ncc(a, 3 * a + 2, mask) == pytest.approx(1)
    assert metrics.ncc(a, -a, mask) == pytest.approx(-1)
    assert abs(metrics.ncc(a, metrics.to_float(speckle(seed=2)), mask)) < 0.1
    assert metrics.ncc(a, np.zeros_like(a), mask) == 0
    assert math.isnan(metrics.ncc(a, a, np.zeros_like(mask)))


def test_leakage_tells_the_source_from_the_driving_frame() -> None:
    source, driving = speckle(seed=1), speckle(seed=2)
    mask = np.ones(source.shape, bool)
    good = metrics.leakage_ncc(source, source, driving, mask, mask)
    assert good.source == pytest.approx(1)
    assert good.driving == good.floor and abs(good.floor) < 0.1
    copied = metrics.leakage_ncc(driving, source, driving, mask, mask)
    assert copied.driving == pytest.approx(1) and abs(copied.source) < 0.1
    # What is slow and bright in the driving frame is no speckle.
    slow = np.clip(source.astype(int) + cv2.GaussianBlur(driving, (0, 0), 12) - 100, 0, 255)
    soft = metrics.leakage_ncc(slow.astype(np.uint8), source, driving, mask, mask)
    assert soft.source > 0.9 and abs(soft.driving) < 0.15


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=4, max_size=40),
    st.integers(1, 3),
)
def test_spread_agrees_with_numpy_however_it_is_fed(
    pairs: list[tuple[float, float]], step: int
) -> None:
    samples = np.array(pairs, np.float32)
    spread = metrics.Spread()
    for start in range(0, len(samples), step):
        part = samples[start : start + step]
        spread.add(part[:, 0], part[:, 1])
    a, b = samples.astype(np.float64).T
    if b.std() < 1e-3:
        return
    assert spread.ratio() == pytest.approx(a.std() / b.std(), rel=1e-4, abs=1e-5)
    if a.std() > 1e-3:
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
