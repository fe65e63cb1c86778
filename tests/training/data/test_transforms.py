"""Plane maps agree for pixels, keypoints and flow; other looks go as far as they are asked."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import speckle

from sonomime.training.data.transforms import (
    IDENTITY,
    FloatArray,
    blackout,
    other_light,
    other_speckle,
    random_bend,
    similarity,
    tone_curve,
)

from .clips import point_grid


def test_identity_mirror_and_a_shift_by_whole_pixels_are_exact() -> None:
    image = np.random.default_rng(0).integers(1, 256, (64, 64), dtype=np.uint8)
    colours = np.stack([image, image.T, 255 - image], axis=-1)
    np.testing.assert_array_equal(IDENTITY.apply(colours), colours)
    mirror = similarity(1, 0, (0, 0), flip=True)
    np.testing.assert_array_equal(mirror.apply(image), image[:, ::-1])
    np.testing.assert_allclose(mirror.carry(np.array([[0.3, -0.2]])), [[-0.3, -0.2]])
    moved = similarity(1, 0, (2 * 5 / 64, 2 * -3 / 64), flip=False).apply(image)
    np.testing.assert_array_equal(moved[:-3, 5:], image[3:, :-5])
    assert not moved[:, :5].any() and not moved[-3:].any()


def test_a_similarity_scales_turns_and_shifts_the_content() -> None:
    map_ = similarity(1.2, 90, (0.1, -0.2), flip=False)
    there = map_.carry(np.array([[0.5, 0.25]]))
    np.testing.assert_allclose(there, [[-1.2 * 0.25 + 0.1, 1.2 * 0.5 - 0.2]], atol=1e-9)
    np.testing.assert_allclose(map_.read(there), [[0.5, 0.25]], atol=1e-9)


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([16, 64]))
def test_a_bend(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    bend = random_bend(rng)
    points = rng.uniform(-0.9, 0.9, (20, 2))
    np.testing.assert_allclose(bend.read(bend.carry(points)), points, atol=1e-6)
    still = points @ bend.matrix.T + bend.offset
    assert np.linalg.norm(bend.read(points) - still, axis=-1).max() <= 0.16 + 1e-9  # its reach
    # The grid is the map at the pixels' centres, and folds nowhere.
    x, y = grid = bend.grid(size).astype(np.float64)
    expected = bend.read(point_grid(size).reshape(-1, 2))
    np.testing.assert_allclose(grid.reshape(2, -1).T, expected, atol=2e-6)
    jacobian = np.diff(x, axis=1)[:-1] * np.diff(y, axis=0)[:, :-1]
    jacobian -= np.diff(x, axis=0)[:, :-1] * np.diff(y, axis=1)[:-1]
    assert jacobian.min() > 0
    placed = similarity(1.1, 7, (0.1, -0.05), flip=True)
    both = placed.read(bend.read(points))
    np.testing.assert_allclose(bend.after(placed).read(points), both, atol=1e-9)


def test_tone_curve() -> None:
    np.testing.assert_allclose(tone_curve(1, 1), np.arange(256) / 255, atol=1e-6)
    bright = tone_curve(2, 1.25)
    assert bright.dtype == np.float32 and (bright[0], bright[-1]) == (0, 1)
    assert (np.diff(bright) >= 0).all()
    np.testing.assert_allclose(bright[51], 2 * 0.2**1.25, rtol=1e-6)


# -- other looks ----------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[FloatArray, np.random.Generator], FloatArray]] = {
    "speckle": lambda image, rng: other_speckle(image, rng, 0.3),
    "light": lambda image, rng: other_light(image, rng, 0.25),
    "blackout": blackout,
}


def picture(channels: int = 1) -> FloatArray:
    """Grains upon grey, far from black and white."""
    return np.asarray(0.3 + 0.3 * speckle(128, channels) / np.float32(255), np.float32)


def texture(image: FloatArray) -> FloatArray:
    return np.asarray(image - cv2.GaussianBlur(image, (0, 0), 1.5), np.float32)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_new_image_by_the_generator_alone(name: str, channels: int) -> None:
    image = picture(channels)
    before = image.copy()
    made = [CHANGES[name](image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert np.array_equal(image, before)
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2]) and not np.array_equal(made[0], image)
    for level in (0.0, 1.0):
        made.append(CHANGES[name](np.full_like(image, level), np.random.default_rng(1)))
    for each in made:
        assert each.shape == image.shape and each.dtype == np.float32
        assert np.isfinite(each).all() and 0 <= each.min() <= each.max() <= 1


@pytest.mark.parametrize("least", [0.0, 0.3, 1.0])
def test_speckle_correlates_by_what_is_asked_and_the_low_pass_stays(least: float) -> None:
    image, found, strength = picture(), [], []
    for seed in range(30):
        made = other_speckle(image, np.random.default_rng(seed), least)
        slow = [cv2.GaussianBlur(x, (0, 0), 6) for x in (image, made)]
        assert np.abs(slow[1] - slow[0]).max() < 0.02
        found.append(np.corrcoef(texture(image).ravel(), texture(made).ravel())[0, 1])
        strength.append(texture(made).std() / texture(image).std())
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


def test_light_is_as_strong_as_is_asked() -> None:
    image = np.full((64, 64), 0.2, np.float32)
    assert np.allclose(other_light(image, np.random.default_rng(0), 0.0), image)
    made = [other_light(image, np.random.default_rng(seed), 0.1) for seed in range(200)]
    logs = np.log(np.array(made) / image)
    # Gain, its change over the picture, and gamma upon the log of the level.
    wanted = 0.1 * np.sqrt(1 + 0.6**2 + (np.log(0.2) / 2) ** 2)
    assert np.std(logs) == pytest.approx(wanted, rel=0.2)
    assert all(0.005 < np.std(each) < 0.2 for each in logs)


def test_a_blackout_is_one_block_inside() -> None:
    for seed in range(20):
        black = blackout(picture(), np.random.default_rng(seed)) == 0
        sides = [np.ptp(np.flatnonzero(black.any(axis))) + 1 for axis in (0, 1)]
        assert black.sum() == np.prod(sides)
        assert 128 // 16 <= min(sides) <= max(sides) < 128 // 4
