"""Where in the reference frame a place of the source is, as landmarks of both pictures say.

Two subjects differ in size, shape and place: the motion of a place in the source is read where the
same place of the anatomy is in the reference. Displacements themselves are carried over unturned
and unscaled.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square; pixels (x, y) with 0 at
the centre of the first one. Source: METHOD.md, "At inference".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .media.frames import Letterbox

SOFTENING = 30 / 128
"""In points: 30 pixels of a square of 256. Nearer than that, landmarks count nearly alike."""

CLOSE = 20 / 128
"""In points: 20 pixels of a square of 256. Landmarks that spread by much less say little of how
much larger one anatomy is; those that coincide, nothing."""

MOST_LARGER = 2.0
"""Anatomies that differ by more are taken to differ by this much; the rest are offsets."""
SURE = 0.5
"""Probability from which a landmark is taken to be there."""


class Landmark(NamedTuple):
    """A named place in pixels of its picture, and the probability that it is there."""

    name: str
    x: float
    y: float
    probability: float


def by_landmarks(
    places: NDArray[np.float64],
    source_points: NDArray[np.float64],
    reference_points: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where in the reference frame places of the source are, (..., 2).

    The landmarks' spread s, the root of their mean square distance from their centre, says how much
    larger the anatomy is in one picture: sqrt((s_reference^2 + 20^2) / (s_source^2 + 20^2)). About
    their centres it is made as large as in the other. What then is left of a landmark's offset is
    blended (`nearby`). One landmark is a shift.

    Args:
        places: (..., 2) points of the source.
        source_points, reference_points: (K, 2) points of the same K landmarks, K at least 1.
    """
    centres = source_points.mean(axis=0), reference_points.mean(axis=0)
    larger = size_ratio(source_points, reference_points)
    scaled = centres[1] + larger * (places - centres[0])
    offsets = reference_points - centres[1] - larger * (source_points - centres[0])
    there: NDArray[np.float64] = scaled + nearby(places, source_points, offsets)
    return there


def nearby(
    places: NDArray[np.float64], points: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values (K, 2) of points (K, 2), blended at places (..., 2) by 1 / (d^2 + 30^2): d is the
    distance from place to point in pixels of 256."""
    squares = np.square(places[..., None, :] - points).sum(axis=-1)  # (..., K)
    weights = 1 / (squares + SOFTENING**2)
    blended: NDArray[np.float64] = (weights @ values) / weights.sum(axis=-1, keepdims=True)
    return blended


def size_ratio(source_points: NDArray[np.float64], reference_points: NDArray[np.float64]) -> float:
    """How much larger an anatomy is in the reference frame, from 1/2 to 2; see `by_landmarks`."""
    own, other = (
        np.square(points - points.mean(axis=0)).sum(axis=-1).mean() + CLOSE**2
        for points in (source_points, reference_points)
    )
    return float(np.clip(np.sqrt(other / own), 1 / MOST_LARGER, MOST_LARGER))


def pixels_to_points(pixels: NDArray[np.float64], box: Letterbox) -> NDArray[np.float64]:
    """(..., 2) pixels of a picture -> points of the square that it is letterboxed into."""
    points: NDArray[np.float64] = (2 * box.to_square(pixels) + 1) / box.size - 1
    return points


def points_to_pixels(points: NDArray[np.floating], box: Letterbox) -> NDArray[np.float64]:
    """The inverse of `pixels_to_points`."""
    square = ((np.asarray(points, np.float64) + 1) * box.size - 1) / 2
    return box.to_picture(square)


def is_inside(pixels: NDArray[np.float64], width: int, height: int) -> NDArray[np.bool_]:
    """Which of (..., 2) places lie on some pixel of a picture."""
    within = (pixels >= -0.5) & (pixels <= np.array([width, height]) - 0.5)
    inside: NDArray[np.bool_] = np.all(within, axis=-1)
    return inside
