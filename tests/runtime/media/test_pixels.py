"""Rows of pixels, planes, and how far apart two images are."""

from __future__ import annotations

import numpy as np
import pytest

from sonomime.runtime.media.pixels import levels_apart, psnr, to_image, to_planes


def test_planes_and_back() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    planes = to_planes(colour)
    assert planes.shape == (1, 3, 16, 16) and planes.flags.c_contiguous
    assert np.array_equal(planes[0, 1], colour[..., 1])
    assert np.array_equal(to_image(planes), colour)
    grey = colour[..., 0]
    assert to_planes(grey).shape == (1, 1, 16, 16)
    back = to_image(to_planes(grey))
    assert np.array_equal(back, grey) and not np.shares_memory(back, grey)


def test_how_far_apart() -> None:
    black = np.zeros((4, 4), np.uint8)
    assert psnr(black, black) == np.inf
    assert psnr(black + 1, black) == pytest.approx(48.13, abs=0.01)
    assert psnr(np.full(4, 0.1), np.zeros(4), peak=1.0) == pytest.approx(20)
    assert levels_apart(black, black + 255) == 255
