"""One clip's account: each measure against a method whose fault is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.evaluation.fidelity import Account, Targets
from sonomime.training.evaluation.metrics import clip_mask, warp_by_flow

from .fakes import moving_clip, speckle

Frames = NDArray[np.uint8]


def judge(frames: Frames, method: Callable[[Frames, Frames], Frames]) -> SimpleNamespace:
    """The measures of `method(source, x)` on a clip."""
    middle = len(frames) // 2
    targets = Targets(frames[middle], clip_mask(frames))
    account = Account(targets)
    for index, x in enumerate(frames):
        if index == middle:
            targets.gap()
            continue
        account.add(method(frames[middle], x), targets.frame(x))
    return SimpleNamespace(**account.result())


def test_a_perfect_copy() -> None:
    copy = judge(moving_clip(), lambda s, x: x)
    assert copy.l1_ratio == 0 and copy.low_pass_ratio == 0 and copy.l1 == 0
    assert copy.sharpness == pytest.approx(1)
    assert copy.motion_agreement == pytest.approx(1)
    assert copy.farneback_agreement == pytest.approx(1)
    assert copy.temporal_ratio == pytest.approx(1)
    assert copy.temporal_correlation == pytest.approx(1)
    assert copy.psnr == pytest.approx(100) and copy.ssim == pytest.approx(1)


def test_blur_pleases_l1_but_not_the_rest() -> None:
    # Speckle that is new in every frame: there, blur is what L1 rewards.
    frames = np.stack([speckle(seed=seed) for seed in range(7)])
    blur = judge(frames, lambda s, x: cv2.GaussianBlur(s, (0, 0), 4))
    assert blur.l1_ratio < 0.85
    assert blur.sharpness < 0.5
    assert blur.temporal_ratio == 0


def test_a_known_translation_is_known_motion() -> None:
    frames = moving_clip(size=128)
    middle = len(frames) // 2
    where = iter([t for t in range(len(frames)) if t != middle])

    def translate(s: Frames, x: Frames) -> Frames:
        flow = np.zeros((*s.shape, 2), np.float32)
        flow[..., 0] = -2.0 * (next(where) - middle)
        return np.asarray(warp_by_flow(s, flow), np.uint8)

    known = judge(frames, translate)
    assert known.motion_agreement > 0.9
    assert known.farneback_agreement > 0.8
    assert known.temporal_correlation > 0.7  # zeros come in at the border
    assert known.l1_ratio < 0.4


def test_motion_agreement_is_undefined_where_little_moves() -> None:
    little = judge(moving_clip(step=0.3), lambda s, x: x)
    assert math.isnan(little.motion_agreement) and math.isnan(little.farneback_agreement)


def test_a_still_clip_defines_no_ratio() -> None:
    still = judge(np.repeat(speckle()[None], 5, axis=0), lambda s, x: s)
    assert math.isnan(still.l1_ratio) and math.isnan(still.temporal_ratio)
    assert still.sharpness == pytest.approx(1)


def test_only_the_mask_counts_for_the_ratios() -> None:
    frames = moving_clip()
    frames[:, :20] = 0

    def soil(s: Frames, x: Frames) -> Frames:
        soiled = s.copy()
        soiled[:8] = 200  # far from M, so that no blur brings it in
        return soiled

    soiled = judge(frames, soil)
    assert soiled.l1_ratio == 1
    assert soiled.low_pass_ratio == pytest.approx(1, abs=0.01)
    assert soiled.l1 > judge(frames, lambda s, x: s).l1
