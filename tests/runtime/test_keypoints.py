"""Hulls, scale and the best reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sonomime.runtime.keypoints import hull_area, hull_scale, reference_distance

SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)

finite = st.floats(-1, 1, width=32)
clouds = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=finite)


def test_areas_that_are_known() -> None:
    assert hull_area(SQUARE) == 4
    assert hull_area(np.concatenate([SQUARE / 2, SQUARE, np.zeros((3, 2))])) == 4
    assert hull_area(SQUARE[:3]) == 2
    assert hull_area(SQUARE[:2]) == hull_area(np.array([[-0.0, 0.0], [0.0, 0.0]])) == 0
    assert hull_area(np.stack([np.linspace(-1, 1, 7)] * 2, -1)) == 0
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    assert hull_area(circle) == pytest.approx(np.pi, rel=1e-4)


@given(points=clouds, seed=st.integers(0, 99))
def test_area_knows_no_order_and_no_place(points: np.ndarray, seed: int) -> None:
    area = hull_area(points)
    shuffled = np.random.default_rng(seed).permutation(points)
    assert hull_area(shuffled) == pytest.approx(area, abs=1e-6)
    assert hull_area(points + 3) == pytest.approx(area, abs=1e-5)
    assert hull_area(2 * points) == pytest.approx(4 * area, abs=1e-6)
    width, height = np.ptp(points, axis=0)
    assert 0 <= area <= width * height + 1e-6


def test_scale_is_the_ratio_of_sides_within_bounds() -> None:
    assert hull_scale(SQUARE / 2, SQUARE / 3) == pytest.approx(1.5)
    assert hull_scale(SQUARE / 3, SQUARE / 2) == pytest.approx(2 / 3)
    assert hull_scale(SQUARE, SQUARE / 9) == 2
    assert hull_scale(SQUARE / 9, SQUARE) == 0.5
    assert hull_scale(SQUARE, SQUARE / 1000) == 1, "too small to tell"
    assert hull_scale(SQUARE[:2], SQUARE) == 1


def test_the_best_reference_has_the_source_s_pose_wherever_and_however_large() -> None:
    rng = np.random.default_rng(3)
    source = rng.uniform(-0.5, 0.5, (6, 2)).astype(np.float32)
    frames = rng.uniform(-0.5, 0.5, (9, 6, 2)).astype(np.float32)
    frames[5] = 0.6 * source + [0.3, -0.2]
    distances = [reference_distance(source, frame) for frame in frames]
    assert distances[5] == pytest.approx(0, abs=1e-9)
    assert min(distances[:5] + distances[6:]) > 0.1
