"""Affine registration of source and reference by matching them, as frames are matched.

The matcher follows tissue from frame to frame; between two subjects it finds what is alike. Its
displacements are too rough to be believed one by one, but not their affine trend, weighed by how
sure they are. What is left of the landmarks' offsets is then blended in, so that landmarks count as
they are. Where nothing is alike, the trend fades to nothing.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .alignment import by_landmarks, nearby
from .bundle.manifest import CONFIDENCE
from .session import Planes, Session, own_places

RIDGE = 1 / 512
"""How sure cells have to be, on average, for a shift that all agree on to count for half. On 24
pairs of phantoms that nothing was trained on, half and four times as much gave the same to .01."""

ROUNDS = 2
"""Without landmarks; where they begin it, a second round makes it no better."""

Places = NDArray[np.float64]


class Landmarks(NamedTuple):
    """(K, 2) points of the same K landmarks in the letterboxed squares of both pictures."""

    source: Places
    reference: Places


def registered(
    session: Session, source: Planes, reference: Planes, landmarks: Landmarks | None
) -> NDArray[np.float32]:
    """For each cell of the source, where in the reference it is found.

    The reference is taken by the session again and again: states are fresh at the end.

    Args:
        source, reference: uint8 (1, C, S, S), letterboxed.
        landmarks: where to begin; None is each cell's own place.

    Returns:
        float32 (1, rows, columns, 2), points.

    Raises:
        BackendError: a stage failed.
    """
    trend = np.zeros((3, 2))
    rows, columns = session.read(CONFIDENCE).shape[2:]
    cells = own_places(rows, columns).astype(np.float64)

    def found(places: Places) -> Places:
        """Where places of the source are in the reference, by all that is known so far."""
        moved = places + _homogeneous(places) @ trend
        return moved if landmarks is None else by_landmarks(moved, *landmarks)

    for _ in range(ROUNDS if landmarks is None else 1):
        session.set_reference(_seen_from(reference, found))
        displacement = session.match(source).astype(np.float64)
        further = affine_trend(displacement, session.read(CONFIDENCE)[0, 0])
        # The maps one after the other: first the further one, which is of the source's cells.
        trend = further + _homogeneous_map(further) @ trend
    session.set_reference(reference)
    grid = found(cells)
    if landmarks is not None:
        left = landmarks.reference - found(landmarks.source)
        grid = grid + nearby(cells, landmarks.source, left)
    return grid.astype(np.float32)


def affine_trend(
    displacement: NDArray[np.floating], confidence: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The affine displacement (x, y, 1) @ B that fits best, by weighed least squares with a ridge.

    Args:
        displacement: (rows, columns, 2) of the cells, in points.
        confidence: (rows, columns), in [0, 1].

    Returns:
        B, (3, 2); 0 where no cell is sure.
    """
    rows, columns = confidence.shape
    places = _homogeneous(own_places(rows, columns).astype(np.float64)).reshape(-1, 3)
    weighed = places.T * confidence.astype(np.float64).ravel()
    ridge = RIDGE * rows * columns * np.eye(3)
    return np.asarray(
        np.linalg.solve(weighed @ places + ridge, weighed @ displacement.reshape(-1, 2))
    )


def _seen_from(reference: Planes, found: Callable[[Places], Places]) -> Planes:
    """The reference as it would look with the source's anatomy in its places; a grey level goes on
    beyond the border."""
    import cv2

    height, width = reference.shape[2:]
    places = found(own_places(height, width)[0].astype(np.float64))
    pixels = (((places + 1) * (width, height) - 1) / 2).astype(np.float32)
    x, y = pixels[..., 0], pixels[..., 1]
    planes = [
        cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in reference[0]
    ]
    return np.stack(planes)[None].astype(np.uint8)


def _homogeneous(places: Places) -> Places:
    return np.concatenate([places, np.ones_like(places[..., :1])], axis=-1)


def _homogeneous_map(trend: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3): where homogeneous places go."""
    whole = np.eye(3)
    whole[:, :2] += trend
    return whole
