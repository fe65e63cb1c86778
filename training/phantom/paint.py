"""Painting tissue: soft-edged shapes and grain on a raster of echogenicity and attenuation."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from .arrays import FloatArray, Raster
from .flow import ellipse_distance
from .tissue_map import Grid

SOFT = 0.28
"""Attenuation of soft tissue there and back, dB per mm; a depth gain makes up for it."""


class Canvas:
    """The body at rest, painted layer over layer.

    Attributes:
        echo: echogenicity, dB.
        loss: attenuation there and back, dB per mm.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
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

    def distort(self, rng: np.random.Generator, amount: float, fixed: FloatArray) -> None:
        """Bend what is painted later by about ``amount`` mm, except near ``fixed`` (n, 2)."""
        free = np.ones(self.points.shape[:2])
        for point in fixed:
            gap = np.square(self.points - point).sum(axis=-1)
            free *= 1 - np.exp(-gap / (2 * 7.0**2))
        bend = np.stack([self.grain(rng, 16, 16, 0.0), self.grain(rng, 16, 16, 0.0)], axis=-1)
        self.points = self.points + amount * free[..., None] * bend

    def grain(self, rng: np.random.Generator, along: float, across: float, angle: float) -> Raster:
        """Smooth noise of mean 0 and deviation 1, its features ``along`` x ``across`` mm, turned by
        ``angle`` radians."""
        c, s = np.cos(angle), np.sin(angle)
        u = self.points @ np.array([c, s]) / along
        v = self.points @ np.array([-s, c]) / across
        u, v = u - u.min() + 2, v - v.min() + 2
        noise = rng.standard_normal((int(v.max()) + 4, int(u.max()) + 4)).astype(np.float32)
        grain = cv2.remap(noise, u.astype(np.float32), v.astype(np.float32), cv2.INTER_CUBIC)
        return np.asarray((grain - grain.mean()) / max(float(grain.std()), 1e-6), np.float32)


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
