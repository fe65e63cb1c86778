"""The alignment of an Animator's source and reference: what is asked for, and when it is made.

It belongs to that pair: another source or reference drops it. A request made before there is a
reference waits for the first one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .alignment import by_landmarks, is_inside, pixels_to_points
from .bundle.manifest import DRIVING_FRAME, SOURCE_IMAGE
from .media.frames import Letterbox
from .registration import Framed, Landmarks, registered
from .session import Session
from .support.errors import ConfigError, InputError

Points = NDArray[np.float64]


class _Request(NamedTuple):
    """(K, 2) landmarks in pixels of the source and of the reference, or None; the source's
    letterbox; and whether to match the pictures."""

    landmarks: tuple[Points, Points] | None
    source: Letterbox
    pictures: bool

    def check(self, reference: Letterbox) -> None:
        if self.landmarks is not None:
            _check_inside(self.landmarks[1], reference, "reference")


class Aligner:
    """Aligns the source and the reference of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._request: _Request | None = None
        self._box: Letterbox | None = None  # the reference's
        # A copy: later driving frames overwrite the tensor that the reference was given in.
        self._reference: Framed | None = None

    def align(
        self, source_points: ArrayLike | None, reference_points: ArrayLike | None, pictures: bool,
        source: Letterbox,
    ) -> None:  # fmt: skip
        """See `Animator.align`; `source` is the source's letterbox."""
        if not self._session.can_align:
            raise ConfigError(
                "this model cannot align source and reference",
                "only models that move by displacements can",
            )
        landmarks = None
        if source_points is not None or reference_points is not None:
            landmarks = _points(source_points, "source"), _points(reference_points, "reference")
            counts = [len(points) for points in landmarks]
            if counts[0] != counts[1]:
                raise InputError(
                    f"there are {counts[0]} points of the source, {counts[1]} of the reference",
                    "give every landmark in both pictures, in the same order",
                )
            _check_inside(landmarks[0], source, "source")
        elif not (pictures and self._session.can_register):
            raise ConfigError(
                "there is nothing to align source and reference by",
                "give landmarks of both; models with a confidence also match the two pictures",
            )
        request = _Request(landmarks, source, pictures)
        if self._box is None or not self._session.has_reference:
            self._request = request
            return
        request.check(self._box)
        self._request = request
        try:
            self._apply(request, self._box)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Read every place of the source at its own place again."""
        self._request = None
        self._session.align(None)

    def begin(self, box: Letterbox) -> None:
        """Prepare for a new reference: keep a waiting request, drop an existing alignment.

        Raises:
            InputError: points of the waiting request lie outside of it.
        """
        if self._session.has_reference:
            self.drop()
        if self._request is not None:
            self._request.check(box)
        self._box = box

    def settle(self) -> None:
        """Align by the waiting request, now that the reference is taken.

        Raises:
            BackendError: a stage failed.
        """
        assert self._box is not None  # of `begin`
        if self._session.can_register:
            self._reference = Framed(self._session.read(DRIVING_FRAME), self._box)
        if self._request is not None:
            self._apply(self._request, self._box)

    def _apply(self, request: _Request, box: Letterbox) -> None:
        session, landmarks = self._session, None
        if request.landmarks is not None:
            source, reference = request.landmarks
            landmarks = Landmarks(
                pixels_to_points(source, request.source), pixels_to_points(reference, box)
            )
        if request.pictures and self._reference is not None:
            framed = Framed(session.read(SOURCE_IMAGE), request.source)
            session.align(registered(session, framed, self._reference, landmarks))
        elif landmarks is not None:
            cells = session.own_cells().astype(np.float64)
            session.align(by_landmarks(cells, *landmarks).astype(np.float32))


def _points(points: ArrayLike | None, what: str) -> Points:
    try:
        checked = np.array(points, np.float64)
    except (TypeError, ValueError):
        checked = np.empty(0)
    shaped = checked.ndim == 2 and checked.shape[1] == 2 and len(checked) > 0
    if not (shaped and np.isfinite(checked).all()):
        raise InputError(
            f"the points of the {what} are not (K, 2) finite numbers",
            "give (x, y) for each landmark",
        )
    return checked


def _check_inside(pixels: Points, box: Letterbox, what: str) -> None:
    for index, (x, y) in enumerate(pixels):
        if not is_inside(np.array([x, y]), box.width, box.height):  # nor where it is not finite
            raise InputError(
                f"point {index} of the {what}, ({x:g}, {y:g}), lies outside of its picture of "
                f"{box.width} x {box.height} pixels",
                "points are (x, y) in pixels of the picture, from 0",
            )
