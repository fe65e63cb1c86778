"""Velocity fields of tissue: sums of local flows, each the curl of a stream function, some of them
with a share that returns outside of the image plane.

Convention: points are (2, N), rows x and z, mm; a field is v = (dpsi/dz, -dpsi/dx), whose
divergence is zero whatever psi is, also where a window holds tissue to bone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .arrays import FloatArray


class Stream(NamedTuple):
    """A stream function and its field at N points: psi (N,), v (2, N)."""

    psi: FloatArray
    v: FloatArray

    def __add__(self, other: Stream) -> Stream:  # type: ignore[override]
        return Stream(self.psi + other.psi, self.v + other.v)


def push(
    points: FloatArray, centre: FloatArray, move: FloatArray, reach: FloatArray, spill: float = 0.0
) -> Stream:
    """A local push: exactly ``move`` at its centre, with the return flow around it.

    psi = (1 - spill) (move x r) exp(-(r_x / reach_x)^2 / 2 - (r_z / reach_z)^2 / 2).

    Args:
        centre, move, reach: (2,), mm.
        spill: share of the flow that returns outside of the image plane and not within it.
    """
    x, z = points - centre[:, None]
    scaled_x, scaled_z = x / reach[0] ** 2, z / reach[1] ** 2
    bell = np.exp(-0.5 * (x * scaled_x + z * scaled_z))
    cross = (1 - spill) * (move[0] * z - move[1] * x)
    v = np.stack([bell * (move[0] - cross * scaled_z), bell * (move[1] + cross * scaled_x)])
    return Stream(cross * bell, v)


def turn(points: FloatArray, centre: FloatArray, angle: float, reach: float) -> Stream:
    """A local turn by ``angle`` radians about a centre that stays where it is, from x towards z
    where positive.

    psi = angle reach^2 exp(-r^2 / (2 reach^2)).
    """
    x, z = points - centre[:, None]
    bell = angle * np.exp(-0.5 * (x * x + z * z) / reach**2)
    return Stream(reach**2 * bell, np.stack([-z * bell, x * bell]))


class Window(NamedTuple):
    """A smooth factor of the stream function: w (N,), 0 where nothing may move, and its gradient
    (2, N)."""

    w: FloatArray
    gradient: FloatArray

    def hold(self, stream: Stream) -> Stream:
        """The flow of w psi: still free of divergence."""
        across = np.stack([self.gradient[1], -self.gradient[0]])
        return Stream(self.w * stream.psi, self.w * stream.v + stream.psi * across)


def ramp(distance: FloatArray, gradient: FloatArray, width: float) -> Window:
    """From 0 at distance 0 to 1 at ``width``, by 6t^5 - 15t^4 + 10t^3.

    Args:
        distance: (N,) and its gradient (2, N).
    """
    t = np.clip(distance / width, 0, 1)
    slope = 30 / width * (t * (1 - t)) ** 2
    return Window(t**3 * (t * (6 * t - 15) + 10), slope * gradient)


def ellipse_distance(
    points: FloatArray, centre: FloatArray, half_axes: FloatArray, angle: float
) -> tuple[FloatArray, FloatArray]:
    """About how far points (2, ...) are outside of a turned ellipse (mm, negative inside), and the
    gradient (2, ...).

    (|u| - 1) times the mean half axis, u the coordinates scaled by the half axes.
    """
    c, s = np.cos(angle), np.sin(angle)
    x, z = points[0] - centre[0], points[1] - centre[1]
    u, v = (c * x + s * z) / half_axes[0], (c * z - s * x) / half_axes[1]
    length = np.maximum(np.sqrt(u * u + v * v), 1e-9)
    mean = float(np.mean(half_axes))
    u, v = mean * u / (length * half_axes[0]), mean * v / (length * half_axes[1])
    return mean * (length - 1), np.stack([c * u - s * v, s * u + c * v])


def circle_distance(
    points: FloatArray, centre: FloatArray, radius: float
) -> tuple[FloatArray, FloatArray]:
    """How far points (2, ...) are outside of a circle, mm, and the gradient (2, ...)."""
    x, z = points[0] - centre[0], points[1] - centre[1]
    length = np.sqrt(x * x + z * z)
    return length - radius, np.stack([x, z]) / np.maximum(length, 1e-9)
