"""Random maps of the plane and changes of what is seen, for training pairs.

Convention: points are (x, y), half_pixel. Frames, keypoints and flow targets all go through the
same map, so that they agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config import DataConfig
from ..coordinates import pixels_to_points

Array = NDArray[np.float64]
FloatArray = NDArray[np.float32]
Image = NDArray[np.uint8]


def spline_weights(x: Array, controls: int) -> Array:
    """Uniform cubic B-spline over [-1, 1], held constant outside: (N,) -> (N, controls)."""
    u = (np.clip(x, -1, 1) + 1) * (controls - 3) / 2
    cell = np.clip(np.floor(u), 0, controls - 4).astype(np.int64)
    t = u - cell
    parts = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    weights = np.zeros((len(x), controls))
    for k, part in enumerate(parts):
        weights[np.arange(len(x)), cell + k] = part / 6
    return weights


@lru_cache(maxsize=64)
def _grid_weights(controls: int, size: int) -> FloatArray:
    centres = pixels_to_points(np.arange(size, dtype=np.float64), size)
    return spline_weights(centres, controls).astype(np.float32)


@dataclass(frozen=True)
class PlaneMap:
    """Where in the old image each point z of the new one is read: A z + b + d(z), d a cubic
    B-spline, which must contract (see :func:`random_bend`), or the map has no inverse."""

    matrix: Array  # A, (2, 2)
    offset: Array  # b, (2,), points
    #: (n, n, 2) displacements in points, [row along y, column along x]; None is d = 0
    control: Array | None = None

    def read(self, points: Array) -> Array:
        """Where the image at ``points`` (N, 2) is read: (N, 2)."""
        return points @ self.matrix.T + self.offset + self._bend(points)

    def grid(self, size: int) -> FloatArray:
        """Where each pixel of a size x size image is read: points, float32 (2, size, size)."""
        line = pixels_to_points(np.arange(size, dtype=np.float64), size)
        by_column = self.matrix[:, :1] * line + self.offset[:, None]
        by_row = self.matrix[:, 1:] * line
        grid = np.asarray(by_column[:, None, :] + by_row[:, :, None], np.float32)
        if self.control is not None:
            weights = _grid_weights(len(self.control), size)
            for axis in (0, 1):
                rows = np.asarray(weights @ self.control[..., axis], np.float32)
                # numpy's product would start threads on the cores that the training uses.
                grid[axis] = cv2.gemm(rows, weights, 1, grid[axis], 1, flags=cv2.GEMM_2_T)
        return grid

    def carry(self, points: Array) -> Array:
        """Where ``points`` (N, 2) of the old image are in the new one: the inverse of read."""
        inverse = np.linalg.inv(self.matrix)
        z: Array = (points - self.offset) @ inverse.T
        # A fixed point: each round brings it nearer by the bend's slope, at worst by 5 %.
        for _ in range(400 if self.control is not None else 0):
            before, z = z, (points - self.offset - self._bend(z)) @ inverse.T
            if np.abs(z - before).max(initial=0) < 1e-10:
                break
        return z

    def after(self, first: PlaneMap) -> PlaneMap:
        """z -> first.read(self.read(z)): the affine map ``first``, then this one."""
        return PlaneMap(
            first.matrix @ self.matrix,
            first.matrix @ self.offset + first.offset,
            None if self.control is None else self.control @ first.matrix.T,
        )

    def apply(self, image: Image) -> Image:
        """The image (S, S[, 3]) read through this map: bilinear, zero padding, uint8."""
        size = image.shape[0]
        if self.control is None:
            half = (size - 1) / 2
            shift = self.offset * (size / 2) + half - self.matrix @ np.array([half, half])
            affine = np.column_stack([self.matrix, shift])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            return np.asarray(cv2.warpAffine(image, affine, (size, size), flags=flags), np.uint8)
        x, y = (self.grid(size) + np.float32(1)) * np.float32(size / 2) - np.float32(0.5)
        return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR), np.uint8)

    def _bend(self, points: Array) -> Array:
        if self.control is None:
            return np.zeros_like(points)
        n = len(self.control)
        by_row = spline_weights(points[:, 1], n) @ self.control.transpose(2, 0, 1)  # (2, N, n)
        bend: Array = (by_row * spline_weights(points[:, 0], n)).sum(axis=-1).T
        return bend


IDENTITY = PlaneMap(np.eye(2), np.zeros(2))


def _turn(degrees: float) -> Array:
    angle = np.deg2rad(degrees)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def similarity(scale: float, degrees: float, shift: tuple[float, float], flip: bool) -> PlaneMap:
    """The map under which the content is mirrored (``flip``: left and right), scaled (above 1 it
    grows), turned about the centre (degrees, positive turns x towards y: clockwise on the screen)
    and shifted: (x, y) in points; half the image's side is 1."""
    forward = scale * _turn(degrees) @ np.diag([-1.0 if flip else 1.0, 1.0])
    inverse: Array = np.linalg.inv(forward)
    return PlaneMap(inverse, -inverse @ np.array(shift, np.float64))


def random_bend(rng: np.random.Generator, reach: float = 0.16) -> PlaneMap:
    """A smooth random deformation: an affine part (at most 4 degrees, 5 % of either scale and half
    of ``reach``), and a low-frequency displacement of at most ``reach`` points (0.16 is 8 % of the
    image). It has an inverse: neighbours come nearer by less than 0.9 of their distance. Its
    strength is drawn too, so that small motions are as common as large ones."""
    strength = rng.uniform(0, 1)
    matrix: Array = _turn(strength * rng.uniform(-4.0, 4.0))
    matrix = matrix @ np.diag(1 + strength * rng.uniform(-0.05, 0.05, 2))
    offset: Array = strength * rng.uniform(-reach / 2, reach / 2, 2)
    n = int(rng.integers(4, 7))
    control = rng.standard_normal((n, n, 2))
    # B-spline weights are convex: the control points bound the displacement, and the differences
    # of neighbours over their spacing bound each of the four entries of its slope.
    control *= strength * rng.uniform(0.3, 1) * reach / np.linalg.norm(control, axis=-1).max()
    steepest = max(np.abs(np.diff(control, axis=axis)).max() for axis in (0, 1)) * (n - 3) / 2
    if steepest > 0.45:
        control *= 0.45 / steepest
    return PlaneMap(matrix, offset, control)


def tone_curve(gain: float, gamma: float) -> FloatArray:
    """Grey level v of 0..255 -> clip(gain (v / 255)^gamma) in [0, 1]: float32 (256,)."""
    levels = np.arange(256, dtype=np.float64) / 255
    return np.clip(gain * levels**gamma, 0, 1).astype(np.float32)


def other_looks(
    source: FloatArray, driving: FloatArray, rng: np.random.Generator, data: DataConfig
) -> tuple[FloatArray, FloatArray]:
    """Make a frame and its own bend, float32 (S, S[, 3]) in [0, 1], look as different as two frames
    do: a matcher would follow speckle, which does not persist in real clips."""
    if data.speckle < 1:
        driving = other_speckle(driving, rng, data.speckle)
    if data.light > 0:
        source, driving = (other_light(image, rng, data.light) for image in (source, driving))
    if rng.uniform() < data.blackout:
        driving = blackout(driving, rng)
    return source, driving


def other_speckle(image: FloatArray, rng: np.random.Generator, least: float) -> FloatArray:
    """Mix the speckle with speckle from elsewhere in the image. The share that is kept varies over
    the picture from ``least`` (0 to 1) to 1."""
    low = cv2.GaussianBlur(image, (0, 0), 1.5)
    texture = image - low
    shift = rng.integers(3, 30, 2) * rng.choice([-1, 1], 2)
    elsewhere = np.roll(texture, tuple(int(s) for s in shift), axis=(0, 1))
    kept = np.clip(_smooth(rng.uniform(least, 1, (3, 3)), image), least, 1)  # a cubic overshoots
    mixed = low + kept * texture + np.sqrt(np.maximum(0, 1 - kept**2)) * elsewhere
    return np.clip(mixed, 0, 1).astype(np.float32)


def other_light(image: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Other gain, gamma and slow shading; ``strength``: standard deviation of the gain's log."""
    gain = np.exp(strength * (rng.normal() + _smooth(rng.normal(0, 0.6, (5, 5)), image)))
    gamma = float(np.exp(rng.normal(0, strength / 2)))
    return np.clip(gain * image**gamma, 0, 1).astype(np.float32)


def blackout(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Make one block of the image black, so that a model learns to fill in what is hidden."""
    side = image.shape[0]
    width, height = (int(n) for n in rng.integers(side // 16, side // 4, 2))
    x, y = int(rng.integers(side - width)), int(rng.integers(side - height))
    image = image.copy()
    image[y : y + height, x : x + width] = 0
    return image


def _smooth(grid: NDArray[np.float64], image: FloatArray) -> FloatArray:
    """A coarse grid as a slow change over the whole image."""
    side = image.shape[0]
    field = cv2.resize(grid.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field if image.ndim == 2 else field[..., None], np.float32)
