"""The map's parts: splines, integration, the body's pose."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.training.phantom.flow import push, turn
from sonomime.training.phantom.tissue_map import Grid, Pose, Resampler, integrate, spline_matrix

FloatArray = NDArray[np.float64]


def swirl(points: FloatArray, time: float) -> FloatArray:
    """A flow as strong as a hard strain, whose centre wanders."""
    centre = np.array([2.0 + 3 * time, 45.0 - 12 * time])
    move, reach = np.array([3.0, -12.0]), np.array([16.0, 24.0])
    return (push(points, centre, move, reach) + turn(points, centre, 0.5, 10.0)).v


def test_splines_go_through_their_nodes_and_keep_straight_lines() -> None:
    nodes = np.linspace(-20, 60, 41)
    np.testing.assert_allclose(spline_matrix(nodes, nodes), np.eye(41), atol=1e-12)
    wanted = np.linspace(-20, 60, 307)
    matrix = spline_matrix(nodes, wanted)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix @ (3 * nodes - 7), 3 * wanted - 7, atol=1e-9)


def test_splines_reproduce_what_is_smooth() -> None:
    nodes, wanted = np.linspace(-20, 60, 41), np.linspace(-10, 50, 307)
    matrix = spline_matrix(nodes, wanted)
    # A cubic bends at the ends, where natural splines do not; that dies out within nodes.
    cubic = np.poly1d([1e-4, -2e-3, 0.3, 5])
    np.testing.assert_allclose(matrix @ cubic(nodes), cubic(wanted), atol=1e-3)
    bell = np.exp(-(((nodes - 20) / 10) ** 2) / 2)
    np.testing.assert_allclose(matrix @ bell, np.exp(-(((wanted - 20) / 10) ** 2) / 2), atol=2e-4)


def test_splines_go_on_beyond_the_last_node_without_breaking() -> None:
    nodes = np.linspace(0, 10, 6)
    inside, outside = spline_matrix(nodes, np.array([9.999, 10.001])) @ np.sin(nodes / 4)
    assert outside == pytest.approx(inside, abs=1e-3)


def test_a_resampler_treats_rows_and_columns_alike() -> None:
    nodes = Grid(np.linspace(0, 20, 11), np.linspace(0, 30, 16))
    wanted = Grid(np.linspace(2, 18, 9), np.linspace(3, 27, 13))
    values = nodes.points * np.array([2.0, -1.0]) + np.array([1.0, 4.0])
    expected = wanted.points * np.array([2.0, -1.0]) + np.array([1.0, 4.0])
    np.testing.assert_allclose(Resampler(nodes, wanted)(values), expected, atol=1e-9)


def test_a_grid_reaches_both_corners() -> None:
    grid = Grid.over(np.array([-3.0, 1.0]), np.array([4.1, 9.0]), 2.0)
    assert (grid.x[0], grid.x[-1], grid.z[0], grid.z[-1]) == (-3, 4.1, 1, 9)
    assert np.diff(grid.x).max() <= 2 and grid.points.shape == (5, 5, 2)


def test_integration_is_as_exact_as_many_small_steps() -> None:
    def around(points: FloatArray, time: float) -> FloatArray:
        return np.stack([-points[1], points[0]])

    start = np.array([[10.0, 0.0], [0.0, 5.0]])
    c, s = np.cos(1.0), np.sin(1.0)
    np.testing.assert_allclose(
        integrate(start, around), start @ np.array([[c, s], [-s, c]]), atol=1e-3
    )


def test_forwards_and_backwards_is_where_one_was() -> None:
    start = Grid.over(np.array([-40.0, 0.0]), np.array([40.0, 90.0]), 3.0).points
    end = integrate(start, swirl)
    assert np.linalg.norm(end - start, axis=-1).max() > 8
    back = integrate(end, swirl, backwards=True)
    assert np.linalg.norm(back - start, axis=-1).max() < 0.005  # a hundredth of a pixel is 0.005 mm


def test_a_pose_can_be_taken_back() -> None:
    pose = Pose(0.07, np.array([-12.0, 20.0]), np.array([2.0, -1.5]))
    points = np.random.default_rng(0).uniform(-40, 80, (50, 2))
    np.testing.assert_allclose(pose.remove(pose.place(points)), points, atol=1e-12)
    np.testing.assert_allclose(pose.place(pose.pivot), pose.pivot + pose.shift)
    ahead = pose.place(pose.pivot + np.array([1.0, 0.0])) - pose.place(pose.pivot)
    assert ahead == pytest.approx([np.cos(0.07), np.sin(0.07)])  # from x towards z
