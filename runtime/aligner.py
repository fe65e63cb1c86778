"""The alignment of an Animator's source and reference: what is asked for, and when it is made.

It belongs to that pair: another source or reference drops it. What is asked for before there is a
reference waits for the first that comes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .alignment import by_landmarks, is_inside, pixels_to_points
from .bundle.manifest import DRIVING_FRAME, SOURCE_IMAGE, DisplacementControl
from .media.frames import Letterbox
from .registration import Framed, Landmarks, registered
from .session import Session, own_places
from .support.errors import ConfigError, InputError


class _Asked(NamedTuple):
    """By what to align: (K, 2) points of the source and pixels of the reference, and the pictures
    themselves or not."""

    source: NDArray[np.float64] | None
    reference: NDArray[np.float64] | None
    pictures: bool

    def check(self, box: Letterbox) -> None:
        """Are the points of the reference inside of it?"""
        if self.reference is not None:
            _check_inside(self.reference, box, "reference")


class Aligner:
    """Aligns the source and the reference that a session holds."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._asked: _Asked | None = None
        self._source: Letterbox | None = None
        self._reference: Letterbox | None = None
        # Later frames overwrite the reference where it was given.
        self._kept: Framed | None = None

    def align(
        self,
        source_points: ArrayLike | None,
        reference_points: ArrayLike | None,
        pictures: bool,
        box: Letterbox,
    ) -> None:
        """See `Animator.align`; `box` is the source's.

        Raises:
            ConfigError: the model cannot align, or not by what is asked.
            InputError: points of another shape, not finite or outside of their picture.
        """
        asked = self._checked(source_points, reference_points, pictures, box)
        reference = self._reference if self._session.has_reference else None
        if reference is not None:
            asked.check(reference)
        self._asked, self._source = asked, box
        if reference is not None:
            try:
                self._apply()
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """Every place of the source is read at its own place again."""
        self._asked = None
        self._session.align(None)

    def begin(self, box: Letterbox) -> None:
        """A reference is about to be taken: what waits is for it, another alignment is not.

        Raises:
            InputError: points that wait lie outside of it.
        """
        if self._session.has_reference:
            self.drop()
        if self._asked is not None:
            self._asked.check(box)
        self._reference = box

    def settle(self) -> None:
        """The reference was taken, and is still where driving frames are given: align what waits.

        Raises:
            BackendError: a stage failed.
        """
        if self._session.can_register:
            assert self._reference is not None
            self._kept = Framed(self._session.read(DRIVING_FRAME), self._reference)
        if self._asked is not None:
            self._apply()

    def _apply(self) -> None:
        asked, box = self._asked, self._reference
        control = self._session.chain.control
        assert asked is not None and box is not None and isinstance(control, DisplacementControl)
        landmarks = None
        if asked.source is not None and asked.reference is not None:
            landmarks = Landmarks(asked.source, pixels_to_points(asked.reference, box))
        if asked.pictures and self._session.can_register:
            assert self._kept is not None and self._source is not None
            source = Framed(self._session.read(SOURCE_IMAGE), self._source)
            grid = registered(self._session, source, self._kept, landmarks)
        else:
            assert landmarks is not None
            cells = own_places(control.grid_height, control.grid_width).astype(np.float64)
            grid = by_landmarks(cells, *landmarks).astype(np.float32)
        self._session.align(grid)

    def _checked(
        self,
        source_points: ArrayLike | None,
        reference_points: ArrayLike | None,
        pictures: bool,
        box: Letterbox,
    ) -> _Asked:
        if not self._session.can_align:
            raise ConfigError(
                "this model cannot align source and reference",
                "alignments are for models that move by displacements",
            )
        if source_points is None and reference_points is None:
            if not (pictures and self._session.can_register):
                raise ConfigError(
                    "there is nothing to align source and reference by",
                    "give landmarks of both"
                    + (", or pictures=True" if self._session.can_register else ""),
                )
            return _Asked(None, None, pictures)
        source = _points(source_points, "source")
        reference = _points(reference_points, "reference")
        if source.shape != reference.shape:
            raise InputError(
                f"there are {len(source)} points of the source, {len(reference)} of the reference",
                "give every landmark in both pictures, in the same order",
            )
        _check_inside(source, box, "source")
        return _Asked(pixels_to_points(source, box), reference, pictures)


def _points(points: ArrayLike | None, what: str) -> NDArray[np.float64]:
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
