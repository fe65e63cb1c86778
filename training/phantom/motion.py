"""How tissue moves: velocity fields, followed over pseudo-time 0..1, then a rigid pose.

A field that is free of divergence is a *stream*, (3, N): a stream function psi, and its curl
v = (dpsi/dz, -dpsi/dx). Streams add up. Points of a field are (2, N), rows x and z, mm.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .probe import FloatArray

Velocity = Callable[[FloatArray, float], FloatArray]
"""(points (2, N) mm, pseudo-time) -> velocity (2, N), mm per unit of pseudo-time."""
Distance = tuple[FloatArray, FloatArray]
"""How far points are outside of something, mm, negative inside, (...); its gradient, (2, ...)."""

_STEPS = 6


class Pose(NamedTuple):
    """How the body lies before the probe: turned about a pivot by radians (x towards z), then
    shifted."""

    angle: float
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


def integrate(points: FloatArray, velocity: Velocity, backwards: bool = False) -> FloatArray:
    """Follow a velocity field over pseudo-time 0..1 (or 1..0), RK4: points (..., 2), mm."""
    shape = points.shape
    points = np.ascontiguousarray(points.reshape(-1, 2).T)
    h = (-1.0 if backwards else 1.0) / _STEPS
    time = 1.0 if backwards else 0.0
    for _ in range(_STEPS):
        a = velocity(points, time)
        b = velocity(points + h / 2 * a, time + h / 2)
        c = velocity(points + h / 2 * b, time + h / 2)
        d = velocity(points + h * c, time + h)
        points = points + h / 6 * (a + 2 * b + 2 * c + d)
        time += h
    return points.T.reshape(shape)


def push(
    points: FloatArray, centre: FloatArray, move: FloatArray, reach: FloatArray, spill: float = 0.0
) -> FloatArray:
    """A local push: exactly ``move`` (2,) mm at its centre, with the return flow around it; of that
    a share, ``spill``, returns outside of the image plane and not within it. A stream.

    psi = (1 - spill) (move x r) exp(-(r_x / reach_x)^2 / 2 - (r_z / reach_z)^2 / 2).
    """
    x, z = points - centre[:, None]
    scaled_x, scaled_z = x / reach[0] ** 2, z / reach[1] ** 2
    bell = np.exp(-0.5 * (x * scaled_x + z * scaled_z))
    cross = (1 - spill) * (move[0] * z - move[1] * x)
    v = bell * (move[0] - cross * scaled_z), bell * (move[1] + cross * scaled_x)
    return np.stack([cross * bell, *v])


def turn(points: FloatArray, centre: FloatArray, angle: float, reach: float) -> FloatArray:
    """A local turn by radians (x towards z) about a centre that stays where it is. A stream.

    psi = angle reach^2 exp(-r^2 / (2 reach^2)).
    """
    x, z = points - centre[:, None]
    bell = angle * np.exp(-0.5 * (x * x + z * z) / reach**2)
    return np.stack([reach**2 * bell, -z * bell, x * bell])


def hold(stream: FloatArray, distance: Distance, width: float) -> FloatArray:
    """The stream of w psi, with w from 0 at distance 0 to 1 at ``width`` mm: tissue that is held
    still, and free of divergence."""
    gap, gradient = distance
    t = np.clip(gap / width, 0, 1)
    slope = 30 / width * (t * (1 - t)) ** 2 * gradient
    w, across = smooth(t), np.stack([slope[1], -slope[0]])
    return np.concatenate([w * stream[:1], w * stream[1:] + stream[0] * across])


def smooth(t: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, smooth between: 6t^5 - 15t^4 + 10t^3."""
    t = np.clip(t, 0, 1)
    return t**3 * (t * (6 * t - 15) + 10)


def ellipse_distance(
    points: FloatArray, centre: FloatArray, half_axes: FloatArray, angle: float
) -> Distance:
    """About the distance of points (2, ...) from a turned ellipse: (|u| - 1) times the mean half
    axis, u the coordinates scaled by the half axes."""
    c, s = np.cos(angle), np.sin(angle)
    x, z = points[0] - centre[0], points[1] - centre[1]
    u, v = (c * x + s * z) / half_axes[0], (c * z - s * x) / half_axes[1]
    length = np.maximum(np.sqrt(u * u + v * v), 1e-9)
    mean = float(np.mean(half_axes))
    u, v = mean * u / (length * half_axes[0]), mean * v / (length * half_axes[1])
    return mean * (length - 1), np.stack([c * u - s * v, s * u + c * v])


def face_distance(points: FloatArray, radius: float) -> Distance:
    """The distance of points (2, ...) from the face of a probe of this radius."""
    x, z = points[0], points[1] + radius
    length = np.sqrt(x * x + z * z)
    return length - radius, np.stack([x, z]) / np.maximum(length, 1e-9)
