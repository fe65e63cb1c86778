"""Velocity fields: free of divergence, still where something holds them."""

from __future__ import annotations

from collections.abc import Callable

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

FloatArray = NDArray[np.float64]
Flow = Callable[[FloatArray], Stream]

STEP = 1e-4
CENTRE, MOVE, REACH = np.array([3.0, 40.0]), np.array([4.0, -9.0]), np.array([15.0, 23.0])
BONE = np.array([-14.0, 20.0]), np.array([17.0, 7.0]), 0.5  # centre, half axes, angle


def points() -> FloatArray:
    """(2, 400), mm, all over a picture."""
    rng = np.random.default_rng(5)
    return np.stack([rng.uniform(-50, 50, 400), rng.uniform(-10, 90, 400)])


def across(function: Callable[[FloatArray], FloatArray], at: FloatArray) -> list[FloatArray]:
    """Central differences along x and z."""
    steps = STEP * np.eye(2)[:, :, None]
    return [(function(at + step) - function(at - step)) / (2 * STEP) for step in steps]


def held(flow: Flow) -> Flow:
    def hold(at: FloatArray) -> Stream:
        face = ramp(*circle_distance(at, np.array([0.0, -50.0]), 50.0), 16.0)
        return face.hold(ramp(*ellipse_distance(at, *BONE), 13.0).hold(flow(at)))

    return hold


def pushed(at: FloatArray) -> Stream:
    return push(at, CENTRE, MOVE, REACH)


def turned(at: FloatArray) -> Stream:
    return turn(at, CENTRE, 0.6, 10.0)


FLOWS: list[Flow] = [
    pushed,
    turned,
    held(pushed),
    held(lambda at: pushed(at) + turned(at)),
]


@pytest.mark.parametrize("flow", FLOWS)
def test_a_flow_is_the_curl_of_its_stream_function(flow: Flow) -> None:
    at = points()
    by_x, by_z = across(lambda p: flow(p).psi, at)
    np.testing.assert_allclose(flow(at).v, np.stack([by_z, -by_x]), atol=2e-5)


@pytest.mark.parametrize("flow", FLOWS)
def test_flows_neither_press_nor_stretch_tissue(flow: Flow) -> None:
    by_x, by_z = across(lambda p: flow(p).v, points())
    strain = max(float(np.abs(by_x).max()), float(np.abs(by_z).max()))
    assert np.abs(by_x[0] + by_z[1]).max() < 1e-4 * strain


@pytest.mark.parametrize("spill", [0.0, 0.65, 1.0])
def test_a_push_is_exactly_its_move_at_its_centre(spill: float) -> None:
    at = np.concatenate([CENTRE[:, None], points()], axis=1)
    v = push(at, CENTRE, MOVE, REACH, spill).v
    np.testing.assert_array_equal(v[:, 0], MOVE)
    assert np.hypot(*v[:, 1:]).max() <= np.hypot(*MOVE)


def test_what_spills_does_not_return_in_the_plane() -> None:
    side = CENTRE[:, None] + np.array([[40.0, -40.0], [0.0, 0.0]])
    straight = np.array([0.0, -9.0])
    assert (push(side, CENTRE, straight, REACH).v[1] > 0.1).all()
    assert (push(side, CENTRE, straight, REACH, 1.0).v[1] <= 0).all()


def test_a_turn_leaves_its_centre_and_turns_what_is_near() -> None:
    at = CENTRE[:, None] + np.array([[0.0, 1e-3], [0.0, 0.0]])
    v = turned(at).v
    np.testing.assert_array_equal(v[:, 0], 0)
    np.testing.assert_allclose(v[:, 1], [0, 0.6e-3], atol=1e-9)  # from x towards z


def test_nothing_moves_in_the_bone_or_behind_the_face() -> None:
    at = points()
    bone, _ = ellipse_distance(at, *BONE)
    face, _ = circle_distance(at, np.array([0.0, -50.0]), 50.0)
    still = (bone <= 0) | (face <= 0)
    assert still.sum() > 10
    v = held(pushed)(at).v
    np.testing.assert_array_equal(v[:, still], 0)
    free = (bone > 13) & (face > 16)
    np.testing.assert_array_equal(v[:, free], pushed(at).v[:, free])


def test_distances_and_their_gradients_agree() -> None:
    at = points()
    for distance in (
        lambda p: ellipse_distance(p, *BONE),
        lambda p: circle_distance(p, CENTRE, 11.0),
    ):
        by_x, by_z = across(lambda p, d=distance: d(p)[0], at)  # type: ignore[misc]
        np.testing.assert_allclose(distance(at)[1], np.stack([by_x, by_z]), atol=1e-5)
    ends = BONE[0][:, None] + np.array([[np.cos(0.5)], [np.sin(0.5)]]) * 17
    assert ellipse_distance(ends, *BONE)[0] == pytest.approx(0, abs=1e-9)
