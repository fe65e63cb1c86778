"""Whether two ultrasound pictures have outlines alike: sectors and rectangles, narrow and wide."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from .media.frames import Image, letterbox, to_channels

log = logging.getLogger("sonomime")

SIDE = 128  # pixels of the square in which outlines are compared
BLACK = 12  # grey levels up to here, after a median of 5 x 5, are the surroundings
ALIKE = 0.5
"""Overlap below which outlines differ much: 1 of 36 pairs of lung clips, none of muscle clips, most
pairs of a linear probe's rectangle and an eye phantom's narrow sector (docs/safety.md)."""


def overlap(first: Image, second: Image) -> float:
    """Shared area of two pictures' outlines over that of both, in [0, 1], where the model sees
    them: letterboxed into the same square. An outline is the hull of all that is not black."""
    one, other = (_filled(image) for image in (first, second))
    return float((one & other).sum() / max(1, (one | other).sum()))


def warn_of_outlines(source: Image, reference: Image) -> None:
    """Warn if motion may be read where there is none, or belongs elsewhere."""
    if (share := overlap(source, reference)) < ALIKE:
        log.warning(
            "source and driving picture differ in outline (%.0f %% in common): motion may be read "
            "beside the driving picture; crop both alike, or align them by landmarks",
            100 * share,
        )  # fmt: skip


def _filled(image: Image) -> NDArray[np.bool_]:
    import cv2

    small = cv2.medianBlur(letterbox(to_channels(image, 1), SIDE)[0], 5)
    filled = np.zeros((SIDE, SIDE), np.uint8)
    if (points := cv2.findNonZero((small > BLACK).astype(np.uint8))) is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled.astype(np.bool_)
