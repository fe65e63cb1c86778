"""Other speckle, light and shadows: how far they go, and that the generator alone decides."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from lively import speckle

from sonomime.training.data.appearance import FloatArray, blackout, other_light, other_speckle

Change = Callable[[FloatArray, np.random.Generator], FloatArray]
CHANGES: dict[str, Change] = {
    "speckle": lambda image, rng: other_speckle(image, rng, 0.3),
    "light": lambda image, rng: other_light(image, rng, 0.25),
    "blackout": blackout,
}


def picture(channels: int = 1, size: int = 128) -> FloatArray:
    """Grains upon grey, far from black and white."""
    grains = speckle(size, channels) / np.float32(255)
    return np.asarray(0.3 + 0.3 * grains, np.float32)


def texture(image: FloatArray) -> FloatArray:
    return np.asarray(image - cv2.GaussianBlur(image, (0, 0), 1.5), np.float32)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_new_image_by_the_generator_alone(name: str, channels: int) -> None:
    image = picture(channels)
    before = image.copy()
    one, same, other = (CHANGES[name](image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(image, before)
    assert one.shape == image.shape and one.dtype == np.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert not np.array_equal(one, image)
    for level in (0.0, 1.0):
        extreme = CHANGES[name](np.full_like(image, level), np.random.default_rng(1))
        assert np.isfinite(extreme).all() and 0 <= extreme.min() <= extreme.max() <= 1


@pytest.mark.parametrize("least", [0.0, 0.3, 0.8, 1.0])
def test_speckle_correlates_by_what_is_asked(least: float) -> None:
    image = picture()
    found, strength = [], []
    for seed in range(30):
        changed = texture(other_speckle(image, np.random.default_rng(seed), least))
        found.append(np.corrcoef(texture(image).ravel(), changed.ravel())[0, 1])
        strength.append(changed.std() / texture(image).std())
    assert np.mean(found) == pytest.approx((1 + least) / 2, abs=0.1)
    assert min(found) > least - 0.1
    assert np.mean(strength) == pytest.approx(1, abs=0.1)


def test_no_grain_is_kept_less_than_is_asked_nor_more_than_whole() -> None:
    image = np.full((128, 128), 0.3, np.float32)
    image[16::32, 16::32] = 0.6  # so far apart that no other grain is put upon one
    grains = texture(image)[16::32, 16::32]
    low = (image - texture(image))[16::32, 16::32]
    kept = [
        (other_speckle(image, np.random.default_rng(seed), 0.3)[16::32, 16::32] - low) / grains
        for seed in range(30)
    ]
    assert 0.28 < np.min(kept) < 0.35 and 0.95 < np.max(kept) < 1.02


def test_speckle_leaves_the_low_pass_alone() -> None:
    image = picture()
    changed = other_speckle(image, np.random.default_rng(0), 0.0)
    slow = [cv2.GaussianBlur(x, (0, 0), 6) for x in (image, changed)]
    assert np.abs(slow[1] - slow[0]).max() < 0.02


def test_light_is_as_strong_as_is_asked() -> None:
    image = np.full((64, 64), 0.2, np.float32)
    assert np.allclose(other_light(image, np.random.default_rng(0), 0.0), image)
    logs = [
        np.log(other_light(image, np.random.default_rng(seed), 0.1) / image) for seed in range(200)
    ]
    # Gain, its change over the picture, and gamma upon the log of the level.
    wanted = 0.1 * np.sqrt(1 + 0.6**2 + (np.log(0.2) / 2) ** 2)
    assert np.std(logs) == pytest.approx(wanted, rel=0.2)
    assert all(0.005 < np.std(each) < 0.2 for each in logs)


def test_a_blackout_is_one_block_inside() -> None:
    image = picture()
    for seed in range(20):
        black = blackout(image, np.random.default_rng(seed)) == 0
        rows, columns = np.flatnonzero(black.any(1)), np.flatnonzero(black.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert black.sum() == height * width
        assert 128 // 16 <= min(height, width) <= max(height, width) < 128 // 4
