"""The tissue map: where every point of the body at rest is in a given state, and back.

The map of a state integrates its velocity field over pseudo-time 0..1 (RK4) and then moves the body
rigidly before the probe. Velocities are evaluated on a coarse grid; cubic splines carry the result
to wherever it is wanted. Integrated backwards, the same field gives the inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .arrays import FloatArray

Velocity = Callable[[FloatArray, float], FloatArray]
"""(points (2, N) mm, pseudo-time) -> velocity (2, N), mm per unit of pseudo-time."""

STEPS = 6


class Pose(NamedTuple):
    """How the body lies before the probe: turned about a pivot, then shifted."""

    angle: float
    """Radians, x towards z."""
    pivot: FloatArray
    shift: FloatArray

    def place(self, points: FloatArray) -> FloatArray:
        """Body -> picture, mm (..., 2)."""
        return (points - self.pivot) @ self._turn().T + self.pivot + self.shift

    def remove(self, points: FloatArray) -> FloatArray:
        """Picture -> body."""
        return (points - self.pivot - self.shift) @ self._turn() + self.pivot

    def _turn(self) -> FloatArray:
        c, s = np.cos(self.angle), np.sin(self.angle)
        return np.array([[c, -s], [s, c]])


class Motion(NamedTuple):
    """What a state does to the body."""

    velocity: Velocity
    pose: Pose


def integrate(points: FloatArray, velocity: Velocity, backwards: bool = False) -> FloatArray:
    """Follow a velocity field over pseudo-time 0..1 (or 1..0), RK4: points (..., 2), mm."""
    shape = points.shape
    points = np.ascontiguousarray(points.reshape(-1, 2).T)
    h = (-1.0 if backwards else 1.0) / STEPS
    time = 1.0 if backwards else 0.0
    for _ in range(STEPS):
        a = velocity(points, time)
        b = velocity(points + h / 2 * a, time + h / 2)
        c = velocity(points + h / 2 * b, time + h / 2)
        d = velocity(points + h * c, time + h)
        points = points + h / 6 * (a + 2 * b + 2 * c + d)
        time += h
    return points.T.reshape(shape)


@dataclass(frozen=True)
class Grid:
    """A regular grid over a rectangle of mm.

    Attributes:
        x, z: the nodes' coordinates, ascending.
    """

    x: FloatArray
    z: FloatArray

    @classmethod
    def over(cls, low: FloatArray, high: FloatArray, spacing: float) -> Grid:
        """The grid of about this spacing whose corners are ``low`` and ``high`` (2,)."""
        count = np.maximum(4, np.ceil((high - low) / spacing).astype(int) + 1)
        return cls(np.linspace(low[0], high[0], count[0]), np.linspace(low[1], high[1], count[1]))

    @property
    def points(self) -> FloatArray:
        """(rows, columns, 2)."""
        return np.stack(np.meshgrid(self.x, self.z), axis=-1)

    def steps(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """mm (..., 2) -> column and row, where 1 is one node."""
        dx, dz = self.x[1] - self.x[0], self.z[1] - self.z[0]
        return (points[..., 0] - self.x[0]) / dx, (points[..., 1] - self.z[0]) / dz


class Resampler:
    """Natural cubic splines from one grid to another, as two matrices."""

    def __init__(self, nodes: Grid, wanted: Grid) -> None:
        self._columns = spline_matrix(nodes.x, wanted.x)
        self._rows = spline_matrix(nodes.z, wanted.z)

    def __call__(self, values: FloatArray) -> FloatArray:
        """(rows, columns, 2) on the nodes -> the same on the wanted grid."""
        return np.stack([self._rows @ values[..., i] @ self._columns.T for i in range(2)], axis=-1)


def spline_matrix(nodes: FloatArray, wanted: FloatArray) -> FloatArray:
    """The matrix (wanted, nodes) of natural cubic spline interpolation on equidistant nodes."""
    n, h = len(nodes), nodes[1] - nodes[0]
    inner = np.zeros((n, n))
    second = np.zeros((n, n))
    inner[0, 0] = inner[-1, -1] = 1
    for i in range(1, n - 1):
        inner[i, i - 1 : i + 2] = (1, 4, 1)
        second[i, i - 1 : i + 2] = np.array([1, -2, 1]) * 6 / h**2
    curvature = np.linalg.solve(inner, second)
    left = np.clip(((wanted - nodes[0]) / h).astype(int), 0, n - 2)
    b = (wanted - nodes[left]) / h
    a = 1 - b
    value = np.eye(n)
    straight = a[:, None] * value[left] + b[:, None] * value[left + 1]
    bend = (a**3 - a)[:, None] * curvature[left] + (b**3 - b)[:, None] * curvature[left + 1]
    return straight + h**2 / 6 * bend
