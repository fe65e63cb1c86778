"""Where in the reference frame a place of the source is, according to landmarks of both pictures.

Two subjects differ in size, shape and place, so the motion of a place in the source is read where
the same anatomy is in the reference. The displacements are used as they are, neither rotated nor
scaled.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square; pixels (x, y) with 0 at
the centre of the first one. Source: docs/method.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .media.frames import Letterbox

Places = NDArray[np.float64]
"""(..., 2) points or pixels."""

SOFTENING = 30 / 128
"""In points: 30 pixels of a square of 256. Landmarks nearer than that weigh nearly the same."""

CLOSE = 20 / 128
"""In points: 20 pixels of a square of 256. Landmarks that spread by much less say little about how
much larger one anatomy is; landmarks that coincide say nothing."""

MOST_LARGER = 2.0
"""Largest ratio of sizes; anything beyond is treated as offsets."""

SURE = 0.5
"""Probability from which a landmark is taken to be there."""


class Landmark(NamedTuple):
    """A named place in pixels of its picture, and the probability that it is there."""

    name: str
    x: float
    y: float
    probability: float


def by_landmarks(places: Places, source: Places, reference: Places) -> Places:
    """Where in the reference places (..., 2) of the source are, by K landmarks (K, 2) of both.

    Places are scaled about the landmarks' centres by sqrt((s_reference^2 + 20^2) / (s_source^2 +
    20^2)), where s is the root mean square distance of landmarks from their centre. The remaining
    offsets of the landmarks are blended (`nearby`). A single landmark is a shift.
    """
    own, other = source.mean(axis=0), reference.mean(axis=0)
    larger = size_ratio(source, reference)
    offsets = reference - other - larger * (source - own)
    return np.asarray(other + larger * (places - own) + nearby(places, source, offsets))


def nearby(places: Places, points: Places, values: Places) -> Places:
    """Values (K, 2) at points (K, 2), blended at places (..., 2) with weights 1 / (d^2 + 30^2), d
    being the distance in pixels of 256."""
    squares = np.square(places[..., None, :] - points).sum(axis=-1)  # (..., K)
    weights = 1 / (squares + SOFTENING**2)
    return np.asarray((weights @ values) / weights.sum(axis=-1, keepdims=True))


def size_ratio(source: Places, reference: Places) -> float:
    """How much larger an anatomy is in the reference frame, from 1/2 to 2; see `by_landmarks`."""
    own, other = (
        np.square(points - points.mean(axis=0)).sum(axis=-1).mean() + CLOSE**2
        for points in (source, reference)
    )
    return float(np.clip(np.sqrt(other / own), 1 / MOST_LARGER, MOST_LARGER))


def pixels_to_points(pixels: Places, box: Letterbox) -> Places:
    """Pixels of a picture -> points of the square that it is letterboxed into."""
    return np.asarray((2 * box.to_square(pixels) + 1) / box.size - 1)


def points_to_pixels(points: NDArray[np.floating], box: Letterbox) -> Places:
    """The inverse of `pixels_to_points`."""
    return box.to_picture(((np.asarray(points, np.float64) + 1) * box.size - 1) / 2)


def is_inside(pixels: Places, width: int, height: int) -> NDArray[np.bool_]:
    """Which of (..., 2) places lie on some pixel of a picture."""
    within = (pixels >= -0.5) & (pixels <= np.array([width, height]) - 0.5)
    return np.asarray(np.all(within, axis=-1))
