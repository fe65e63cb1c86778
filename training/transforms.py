"""Random maps of the plane and of grey levels, for training pairs.

Convention: points are (x, y), half_pixel. A :class:`PlaneMap` says, for each point of the image to be made, where to
READ in the image that there is; keypoints travel the other way, through its inverse. Frames, keypoints and flow
targets all go through the same map, so that they agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from .models.geometry import pixels_to_points, points_to_pixels

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@lru_cache(maxsize=64)
def spline_basis(controls: int, size: int) -> Array:
    """Uniform cubic B-spline over [-1, 1] at the centres of ``size`` pixels: float64 (size, controls)."""
    basis = _basis_at(pixels_to_points(np.arange(size, dtype=np.float64), size), controls)
    basis.flags.writeable = False
    return basis


def _basis_at(x: Array, controls: int) -> Array:
    u = (np.clip(x, -1, 1) + 1) * (controls - 3) / 2
    cell = np.clip(np.floor(u), 0, controls - 4).astype(np.int64)
    t = u - cell
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    basis = np.zeros((len(x), controls))
    for k, weight in enumerate(weights):
        basis[np.arange(len(x)), cell + k] = weight / 6
    return basis


@dataclass(frozen=True)
class PlaneMap:
    """read(z) = A z + b + d(z), d a cubic B-spline of a control grid (held constant outside of the image).

    Attributes:
        matrix: A, (2, 2).
        offset: b, (2,), points.
        control: (n, n, 2) displacements in points, rows along y; None is d = 0. Its slope must stay below 1.
    """

    matrix: Array
    offset: Array
    control: Array | None = None

    def read(self, points: Array) -> Array:
        """Where the image at ``points`` (N, 2) is read: (N, 2)."""
        return points @ self.matrix.T + self.offset + self._bend(points)

    def grid(self, size: int) -> Array:
        """Where each pixel of a size x size image is read: points (size, size, 2)."""
        line = pixels_to_points(np.arange(size, dtype=np.float64), size)
        along_x = line[:, None] * self.matrix[:, 0] + self.offset
        along_y = line[:, None] * self.matrix[:, 1]
        out: Array = along_x[None] + along_y[:, None]
        if self.control is not None:
            basis = spline_basis(len(self.control), size)
            out = out + np.einsum("yi,ijc,xj->yxc", basis, self.control, basis, optimize=True)
        return out

    def carry(self, points: Array, rounds: int = 40) -> Array:
        """Where ``points`` (N, 2) of the image that is read come to lie: the inverse of :meth:`read`."""
        inverse = np.linalg.inv(self.matrix)
        z: Array = (points - self.offset) @ inverse.T
        if self.control is not None:
            for _ in range(rounds):
                z = (points - self.offset - self._bend(z)) @ inverse.T
        return z

    def after(self, first: PlaneMap) -> PlaneMap:
        """The map that reads through this one and then through an affine ``first``: first.read(self.read(z))."""
        if first.control is not None:
            raise ValueError("the map applied first must be affine")
        control = None if self.control is None else self.control @ first.matrix.T
        return PlaneMap(
            first.matrix @ self.matrix, first.matrix @ self.offset + first.offset, control
        )

    def apply(self, image: Image) -> Image:
        """The image (S, S[, 3]) read through this map: bilinear, zero padding."""
        size = image.shape[0]
        if self.control is None:
            half = (size - 1) / 2
            shift = self.offset * (size / 2) + half - self.matrix @ np.array([half, half])
            affine = np.column_stack([self.matrix, shift])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(image, affine, (size, size), flags=flags), np.uint8)
        at = points_to_pixels(self.grid(size), size).astype(np.float32)
        return np.asarray(
            cv2.remap(image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
        )

    def _bend(self, points: Array) -> Array:
        if self.control is None:
            return np.zeros_like(points)
        n = len(self.control)
        by, bx = _basis_at(points[:, 1], n), _basis_at(points[:, 0], n)
        return np.einsum("ni,ijc,nj->nc", by, self.control, bx, optimize=True)


IDENTITY = PlaneMap(np.eye(2), np.zeros(2))


def similarity(scale: float, degrees: float, shift: tuple[float, float], flip: bool) -> PlaneMap:
    """The map under which the image's content is mirrored (x), scaled, turned about the centre and shifted.

    Args:
        scale: above 1 the content grows.
        degrees: positive turns x towards y (clockwise on the screen).
        shift: (x, y) in points; half the image's side is 1.
    """
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = scale * turn @ np.diag([-1.0 if flip else 1.0, 1.0])
    inverse = np.linalg.inv(forward)
    return PlaneMap(inverse, -inverse @ np.array(shift))


def random_bend(
    rng: np.random.Generator, reach: float = 0.16, turn: float = 4.0, stretch: float = 0.05
) -> PlaneMap:
    """A smooth random deformation: small affine part and a low-frequency displacement of at most ``reach`` points.

    The size of the motion is itself drawn, so that small motions are as common as large ones. Without folds: the
    slope of the displacement is held below 0.6.
    """
    strength = rng.uniform(0, 1)
    angle = np.deg2rad(strength * rng.uniform(-turn, turn))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.diag(1 + strength * rng.uniform(-stretch, stretch, 2))
    n = int(rng.integers(4, 9))
    control = rng.standard_normal((n, n, 2))
    # B-spline weights are convex, so the controls bound the displacement, and their differences its slope.
    control *= strength * rng.uniform(0.3, 1) * reach / np.linalg.norm(control, axis=-1).max()
    spacing = 2 / (n - 3)
    steepest = max(np.abs(np.diff(control, axis=axis)).max() for axis in (0, 1)) / spacing
    if steepest > 0.3:
        control *= 0.3 / steepest
    offset = strength * rng.uniform(-reach / 2, reach / 2, 2)
    return PlaneMap(matrix, offset, control)


def tone_curve(gain: float, gamma: float) -> NDArray[np.float32]:
    """Grey level 0..255 -> clip(gain * (v / 255) ^ gamma) in [0, 1]: float32 (256,)."""
    levels = np.arange(256, dtype=np.float64) / 255
    return np.clip(gain * levels**gamma, 0, 1).astype(np.float32)
