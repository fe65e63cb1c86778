"""Painting tissue: soft-edged shapes and grain on a raster of echogenicity and attenuation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .motion import ellipse_distance
from .probe import FloatArray, Raster

SOFT = 0.28
"""Attenuation of soft tissue there and back, dB per mm; a depth gain makes up for it."""


class Grid(NamedTuple):
    """A regular grid over a rectangle of mm: its nodes' coordinates, ascending."""

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


class Canvas:
    """The body at rest, painted layer over layer: echogenicity ``echo``, dB, and attenuation there
    and back ``loss``, dB per mm. ``rng`` draws the grain."""

    def __init__(self, grid: Grid, rng: np.random.Generator | None = None) -> None:
        self.grid, self.rng = grid, rng or np.random.default_rng(0)
        self.points = grid.points
        shape = self.points.shape[:2]
        self.echo: Raster = np.zeros(shape, np.float32)
        self.loss: Raster = np.full(shape, SOFT, np.float32)

    def lay(self, cover: FloatArray, echo: float | Raster, loss: float | None = None) -> None:
        """Cover what is there: ``cover`` in [0, 1]."""
        part = cover.astype(np.float32)
        self.echo += part * (echo - self.echo)
        if loss is not None:
            self.loss += part * (np.float32(loss) - self.loss)

    def add(self, cover: FloatArray, echo: float | Raster | FloatArray) -> None:
        """Make what is there brighter or darker, dB."""
        self.echo += cover.astype(np.float32) * echo

    def ellipse(self, centre: FloatArray, half_axes: FloatArray, angle: float) -> FloatArray:
        """About the signed distance to a turned ellipse, mm."""
        return ellipse_distance(np.moveaxis(self.points, -1, 0), centre, half_axes, angle)[0]

    def stroke(self, line: FloatArray) -> FloatArray:
        """Distance to a curve through points (n, 2), mm."""
        x, z = np.ascontiguousarray(np.moveaxis(self.points, -1, 0))
        best = np.full(x.shape, np.inf)
        for (ax, az), (bx, bz) in pairwise(line):
            ux, uz = bx - ax, bz - az
            dx, dz = x - ax, z - az
            t = np.clip((dx * ux + dz * uz) / (ux * ux + uz * uz), 0, 1)
            dx -= t * ux
            dz -= t * uz
            np.minimum(best, dx * dx + dz * dz, out=best)
        return np.sqrt(best)

    def drawn_stroke(self, line: FloatArray) -> FloatArray:
        """Like :meth:`stroke`, to within half a raster step, and many times faster."""
        mask = np.zeros(self.echo.shape, np.uint8)
        cv2.polylines(mask, [self._sixteenths(line)], False, 1, 1, cv2.LINE_8, 4)
        return self._bent(_distance(1 - mask))

    def outline(self, line: FloatArray) -> FloatArray:
        """The signed distance to a closed line (n, 2), mm."""
        mask = np.zeros(self.echo.shape, np.uint8)
        cv2.fillPoly(mask, [self._sixteenths(line)], 1, cv2.LINE_8, 4)
        return self._bent(cv2.GaussianBlur(_distance(1 - mask) - _distance(mask), (0, 0), 1.2))

    def _sixteenths(self, line: FloatArray) -> NDArray[np.int32]:
        """mm (n, 2) -> sixteenths of columns and rows, with which OpenCV draws between them."""
        return np.rint(16 * np.stack(self.grid.steps(line), axis=-1)).astype(np.int32)

    def _bent(self, gap: Raster) -> FloatArray:
        """A distance in steps, read where the distorted canvas has its points: mm."""
        column, row = (v.astype(np.float32) for v in self.grid.steps(self.points))
        read = cv2.remap(gap, column, row, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE)
        return read.astype(np.float64) * float(self.grid.x[1] - self.grid.x[0])

    def distort(self, amount: float, fixed: FloatArray) -> None:
        """Bend what is painted later by about ``amount`` mm, except near ``fixed`` (n, 2)."""
        free = np.ones(self.points.shape[:2])
        for point in fixed:
            gap = np.square(self.points - point).sum(axis=-1)
            free *= 1 - np.exp(-gap / (2 * 7.0**2))
        bend = np.stack([self.grain(16, 16, 0.0), self.grain(16, 16, 0.0)], axis=-1)
        self.points = self.points + amount * free[..., None] * bend

    def grain(self, along: float, across: float, angle: float) -> Raster:
        """Smooth noise of mean 0 and deviation 1, its features ``along`` x ``across`` mm, turned by
        ``angle`` radians."""
        c, s = np.cos(angle), np.sin(angle)
        u = self.points @ np.array([c, s]) / along
        v = self.points @ np.array([-s, c]) / across
        grain = self.noise(u - u.min() + 2, v - v.min() + 2)
        return np.asarray((grain - grain.mean()) / max(float(grain.std()), 1e-6), np.float32)

    def noise(self, column: FloatArray, row: FloatArray) -> Raster:
        """Noise of one random number for each column and row from 0, read at these places."""
        shape = int(row.max()) + 4, int(column.max()) + 4
        noise = self.rng.standard_normal(shape).astype(np.float32)
        column, row = column.astype(np.float32), row.astype(np.float32)
        return np.asarray(cv2.remap(noise, column, row, cv2.INTER_CUBIC))


def _distance(mask: NDArray[np.uint8]) -> Raster:
    """Of every point of a raster from the nearest 0, in steps."""
    gap = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squares are whole numbers. OpenCV's last bit depends on where in memory the mask lies.
    return np.sqrt(np.rint(np.square(gap, dtype=np.float64))).astype(np.float32)


def within(distance: FloatArray, soft: float = 0.6) -> FloatArray:
    """Cover of where a distance is negative, with an edge of ``soft`` mm."""
    return np.clip(0.5 - distance / soft, 0, 1)


def band(distance: FloatArray, width: float, soft: float = 0.6) -> FloatArray:
    """Cover of a line of this width about where a distance is 0."""
    return within(np.abs(distance) - width / 2, soft)


def curve(points: Sequence[Any], count: int = 24) -> FloatArray:
    """A smooth curve (count, 2) through a few points (x, z) (Catmull-Rom)."""
    p = np.asarray(points, np.float64)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, count)
    i = np.minimum(t.astype(int), len(p) - 4)
    f = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    square, cubic = 2 * a - 5 * b + 4 * c - d, 3 * b - a - 3 * c + d
    return 0.5 * (2 * b + (c - a) * f + square * f**2 + cubic * f**3)
