"""Probe geometry and flows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.phantom.motion import ellipse_distance, face_distance, hold, push, turn
from sonomime.training.phantom.probe import SIZE, Probe, pixel_grid

FloatArray = NDArray[np.float64]
Flow = Callable[[FloatArray], FloatArray]

CURVED = Probe(4.5, 50, 75, 85, 0.6, 45, 0.55, 1.2)
PHASED = replace(CURVED, radius=4, angle=85, depth=140, zoom=0.0)
CENTRE, MOVE, REACH = np.array([3.0, 40.0]), np.array([4.0, -9.0]), np.array([15.0, 23.0])
BONE = np.array([-14.0, 20.0]), np.array([17.0, 7.0]), 0.5  # centre, half axes, angle
AT = np.random.default_rng(5).uniform([[-50], [-10]], [[50], [90]], (2, 400))


@pytest.mark.parametrize("probe", [CURVED, PHASED])
def test_millimetres_pixels_and_polar_coordinates_convert_there_and_back(probe: Probe) -> None:
    mm = probe.to_mm(pixel_grid())
    np.testing.assert_allclose(probe.to_pixels(mm), pixel_grid(), atol=1e-9)
    seen = mm[probe.inside(mm)]
    np.testing.assert_allclose(probe.from_polar(*probe.to_polar(seen)), seen, atol=1e-9)
    # Straight below the middle of the face depth is z, and x grows with the angle to the right.
    depth, angle = probe.to_polar(np.array([[0.0, 30.0], [5.0, 30.0]]))
    assert depth[0] == pytest.approx(30) and angle[0] == 0 and angle[1] > 0


def test_the_sector_fills_the_picture_as_zoom_says() -> None:
    whole, cropped = (replace(CURVED, zoom=zoom).sector() for zoom in (0.0, 1.0))
    assert not whole[:, [0, -1]].any() and not whole[[0, -1]].any()
    columns, rows = np.flatnonzero(whole.any(axis=0)), np.flatnonzero(cropped.any(axis=1))
    assert columns[0] + columns[-1] == SIZE - 1 and columns[0] <= 3
    assert rows[0] <= 3 and rows[-1] >= SIZE - 4 and cropped[:, 0].any()


def across(function: Callable[[FloatArray], FloatArray]) -> list[FloatArray]:
    """Central differences along x and z."""
    steps = 1e-4 * np.eye(2)[:, :, None]
    return [(function(AT + step) - function(AT - step)) / 2e-4 for step in steps]


def held(at: FloatArray) -> FloatArray:
    stream = push(at, CENTRE, MOVE, REACH) + turn(at, CENTRE, 0.6, 10.0)
    return hold(hold(stream, ellipse_distance(at, *BONE), 13.0), face_distance(at, 50.0), 16.0)


@pytest.mark.parametrize(
    "flow",
    [
        lambda at: push(at, CENTRE, MOVE, REACH),
        lambda at: turn(at, CENTRE, 0.6, 10.0),
        held,
    ],
)
def test_a_flow_is_the_curl_of_its_stream_function_and_free_of_divergence(flow: Flow) -> None:
    by_x, by_z = across(flow)
    np.testing.assert_allclose(flow(AT)[1:], np.stack([by_z[0], -by_x[0]]), atol=2e-5)
    largest = max(np.abs(by_x[1:]).max(), np.abs(by_z[1:]).max())
    assert np.abs(by_x[1] + by_z[2]).max() < 1e-4 * largest


@pytest.mark.parametrize("spill", [0.0, 0.65, 1.0])
def test_a_push_is_exactly_its_move_at_its_centre(spill: float) -> None:
    v = push(np.concatenate([CENTRE[:, None], AT], axis=1), CENTRE, MOVE, REACH, spill)[1:]
    np.testing.assert_array_equal(v[:, 0], MOVE)
    assert np.hypot(*v[:, 1:]).max() <= np.hypot(*MOVE)
    # What spills does not return in the plane.
    side = CENTRE[:, None] + np.array([[40.0, -40.0], [0.0, 0.0]])
    assert ((push(side, CENTRE, np.array([0.0, -9.0]), REACH, spill)[2] > 0) == (spill < 1)).all()
