"""Probe geometry, flows, and the map's parts: splines, integration, pose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.phantom.flow import (
    Stream,
    circle_distance,
    ellipse_distance,
    push,
    ramp,
    turn,
)
from sonomime.training.phantom.probe import SIZE, Probe, pixel_grid
from sonomime.training.phantom.tissue_map import integrate, spline_matrix

FloatArray = NDArray[np.float64]
Flow = Callable[[FloatArray], Stream]

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


def pushed(at: FloatArray) -> Stream:
    return push(at, CENTRE, MOVE, REACH)


def turned(at: FloatArray) -> Stream:
    return turn(at, CENTRE, 0.6, 10.0)


def held(at: FloatArray) -> Stream:
    face = ramp(*circle_distance(at, np.array([0.0, -50.0]), 50.0), 16.0)
    return face.hold(ramp(*ellipse_distance(at, *BONE), 13.0).hold(pushed(at) + turned(at)))


@pytest.mark.parametrize("flow", [pushed, turned, held])
def test_a_flow_is_the_curl_of_its_stream_function_and_free_of_divergence(flow: Flow) -> None:
    by_x, by_z = across(lambda p: flow(p).psi)
    np.testing.assert_allclose(flow(AT).v, np.stack([by_z, -by_x]), atol=2e-5)
    by_x, by_z = across(lambda p: flow(p).v)
    assert np.abs(by_x[0] + by_z[1]).max() < 1e-4 * max(np.abs(by_x).max(), np.abs(by_z).max())


@pytest.mark.parametrize("spill", [0.0, 0.65, 1.0])
def test_a_push_is_exactly_its_move_at_its_centre(spill: float) -> None:
    v = push(np.concatenate([CENTRE[:, None], AT], axis=1), CENTRE, MOVE, REACH, spill).v
    np.testing.assert_array_equal(v[:, 0], MOVE)
    assert np.hypot(*v[:, 1:]).max() <= np.hypot(*MOVE)
    # What spills does not return in the plane.
    side = CENTRE[:, None] + np.array([[40.0, -40.0], [0.0, 0.0]])
    assert ((push(side, CENTRE, np.array([0.0, -9.0]), REACH, spill).v[1] > 0) == (spill < 1)).all()


def test_splines_go_through_their_nodes_and_reproduce_what_is_smooth() -> None:
    nodes = np.linspace(-20, 60, 41)
    np.testing.assert_allclose(spline_matrix(nodes, nodes), np.eye(41), atol=1e-12)
    matrix = spline_matrix(nodes, wanted := np.linspace(-10, 50, 307))
    np.testing.assert_allclose(matrix @ (3 * nodes - 7), 3 * wanted - 7, atol=1e-9)
    bell = np.exp(-(((nodes - 20) / 10) ** 2) / 2)
    np.testing.assert_allclose(matrix @ bell, np.exp(-(((wanted - 20) / 10) ** 2) / 2), atol=2e-4)
    inside, outside = spline_matrix(nodes, np.array([59.999, 60.001])) @ np.sin(nodes / 4)
    assert outside == pytest.approx(inside, abs=1e-3)


def test_integration_is_exact_and_can_be_undone() -> None:
    def around(points: FloatArray, time: float) -> FloatArray:
        return np.stack([-points[1], points[0]])

    start, (c, s) = np.array([[10.0, 0.0], [0.0, 5.0]]), (np.cos(1.0), np.sin(1.0))
    expected = start @ np.array([[c, s], [-s, c]])
    np.testing.assert_allclose(integrate(start, around), expected, atol=1e-3)
    back = integrate(expected, around, backwards=True)
    np.testing.assert_allclose(back, start, atol=1e-3)
