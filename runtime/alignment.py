"""Where in the reference frame the motion of each place of the source is read.

Two subjects differ in size, shape and place. Landmarks that both pictures show say by how much: the
motion of a place in the source is read where the same place of the anatomy is in the reference.
Displacements themselves are carried over unturned and unscaled.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square; pixels (x, y) with 0 at
the centre of the first one. Source: METHOD.md, "At inference".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle.manifest import DisplacementControl
from .media.frames import Letterbox
from .session import Session, own_places
from .support.errors import ConfigError, InputError

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


def alignment_grid(
    source_points: NDArray[np.float64],
    reference_points: NDArray[np.float64],
    rows: int,
    columns: int,
) -> NDArray[np.float32]:
    """For each cell of the source, where in the reference frame its motion is read.

    The landmarks' spread s, the root of their mean square distance from their centre, says how much
    larger the anatomy is in one picture: sqrt((s_reference^2 + 20^2) / (s_source^2 + 20^2)). About
    their centres it is made as large as in the other. What then is left of a landmark's offset is
    blended by 1 / (d^2 + 30^2): d is the distance from the cell to the landmark in the source. All
    in pixels of 256. One landmark is a shift.

    Args:
        source_points, reference_points: (K, 2) points of the same K landmarks, K at least 1.
        rows, columns: of the grid.

    Returns:
        float32 (1, rows, columns, 2), points.
    """
    cells = own_places(rows, columns).astype(np.float64)
    centres = source_points.mean(axis=0), reference_points.mean(axis=0)
    larger = size_ratio(source_points, reference_points)
    scaled = centres[1] + larger * (cells - centres[0])
    offsets = centres[1] + larger * (source_points - centres[0]) - reference_points
    squares = np.square(cells[..., None, :] - source_points).sum(axis=-1)  # (1, rows, columns, K)
    weights = 1 / (squares + SOFTENING**2)
    blended = (weights @ offsets) / weights.sum(axis=-1, keepdims=True)
    places: NDArray[np.float32] = (scaled - blended).astype(np.float32)
    return places


def size_ratio(source_points: NDArray[np.float64], reference_points: NDArray[np.float64]) -> float:
    """How much larger an anatomy is in the reference frame, from 1/2 to 2; see `alignment_grid`."""
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


class Aligner:
    """The alignment of an Animator's pair of source and reference.

    It belongs to that pair: another source or reference drops it. What is given before there is a
    reference waits for the first that comes.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._reference: Letterbox | None = None  # counts while the session has a reference
        self._source_points: NDArray[np.float64] | None = None
        self._reference_pixels: NDArray[np.float64] | None = None

    def align(
        self, source_points: ArrayLike | None, reference_points: ArrayLike | None, box: Letterbox
    ) -> None:
        """See `Animator.align`; `box` is the source's.

        Raises:
            ConfigError: the model cannot align.
            InputError: points of another shape, not finite or outside of their picture.
        """
        if not self._session.can_align:
            raise ConfigError(
                "this model cannot align source and reference",
                "landmarks are for models that move by displacements",
            )
        source = _checked(source_points, "source")
        reference = _checked(reference_points, "reference")
        if source.shape != reference.shape:
            raise InputError(
                f"there are {len(source)} points of the source, {len(reference)} of the reference",
                "give every landmark in both pictures, in the same order",
            )
        _check_inside(source, box, "source")
        points = pixels_to_points(source, box)
        if self._session.has_reference:
            self._apply(points, reference, self._reference)
        self._source_points, self._reference_pixels = points, reference

    def drop(self) -> None:
        """Every place of the source is read at its own place again."""
        self._source_points = self._reference_pixels = None
        self._session.align(None)

    def begin(self, box: Letterbox) -> None:
        """A reference is about to be taken: the alignment that waits is for it, another is not.

        Raises:
            InputError: points that wait lie outside of it.
        """
        if self._session.has_reference:
            self.drop()
        self._reference = box
        if self._source_points is not None and self._reference_pixels is not None:
            self._apply(self._source_points, self._reference_pixels, box)

    def _apply(
        self, points: NDArray[np.float64], pixels: NDArray[np.float64], box: Letterbox | None
    ) -> None:
        control = self._session.chain.control
        assert box is not None and isinstance(control, DisplacementControl)
        _check_inside(pixels, box, "reference")
        there = pixels_to_points(pixels, box)
        grid = alignment_grid(points, there, control.grid_height, control.grid_width)
        self._session.align(grid)


def _checked(points: ArrayLike | None, what: str) -> NDArray[np.float64]:
    try:
        checked = np.array(points, np.float64)
    except (TypeError, ValueError):
        checked = np.empty(0)
    if checked.ndim != 2 or checked.shape[1] != 2 or not len(checked):
        raise InputError(
            f"the points of the {what} are not (K, 2) numbers", "give (x, y) for each landmark"
        )
    if not np.isfinite(checked).all():
        raise InputError(f"a point of the {what} is not finite", "leave that landmark out")
    return checked


def _check_inside(pixels: NDArray[np.float64], box: Letterbox, what: str) -> None:
    outside = np.flatnonzero(~is_inside(pixels, box.width, box.height))
    if len(outside):
        x, y = pixels[outside[0]]
        raise InputError(
            f"point {outside[0]} of the {what}, ({x:g}, {y:g}), lies outside of its picture of "
            f"{box.width} x {box.height} pixels",
            "points are (x, y) in pixels of the picture, from 0",
        )
