"""Plane maps: one map for pixels, keypoints and flow targets, and they agree."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sonomime.training.data.transforms import IDENTITY, random_bend, similarity, tone_curve

from .made_clips import point_grid


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
