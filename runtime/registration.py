"""Align source and reference by matching them like frames of one clip.

The matcher follows tissue from frame to frame; between two subjects it finds what looks alike. Its
displacements are too rough to use one by one, but their affine trend is better: weighted by
confidence, from cells that both pictures show, and limited. What then remains of the landmarks'
offsets is blended in.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .alignment import MOST_LARGER, by_landmarks, is_inside, nearby, points_to_pixels
from .bundle.manifest import CONFIDENCE
from .media.frames import Letterbox, shows_something
from .session import Planes, Session, own_places

RIDGE = 1 / 512
"""Mean confidence at which a shift that all cells agree on counts for half. On 24 pairs of phantoms
outside of training, half and twice as much gave the same result to .01."""

FARTHEST = 0.5
"""Largest shift of a trend, in points: a quarter of the square."""

ROUNDS = 2
"""Rounds without landmarks; with them a second round does not help."""

Places = NDArray[np.float64]


class Framed(NamedTuple):
    """A picture, uint8 (1, C, S, S), and where it lies in that square."""

    planes: Planes
    box: Letterbox

    def shows_something(self) -> bool:
        """Whether the picture inside its bars has any contrast."""
        box = self.box
        return shows_something(self.planes[..., box.y : box.y + box.h, box.x : box.x + box.w])

    def shows(self, places: Places) -> NDArray[np.bool_]:
        """Which of (..., 2) points lie on the picture."""
        return is_inside(points_to_pixels(places, self.box), self.box.width, self.box.height)


class Landmarks(NamedTuple):
    """(K, 2) points of the same K landmarks in both squares."""

    source: Places
    reference: Places


def registered(
    session: Session, source: Framed, reference: Framed, landmarks: Landmarks | None
) -> NDArray[np.float32]:
    """For each cell of the source, where in the reference it is found.

    Warped pictures replace the session's reference meanwhile; at the end it is the true one again,
    with fresh states. If a stage fails, there is none.

    Args:
        landmarks: where to begin; None is each cell's own place.

    Returns:
        float32 (1, rows, columns, 2), points.

    Raises:
        BackendError: a stage failed.
    """
    trend = np.zeros((3, 2))

    def found(places: Places) -> Places:
        """Where places of the source are in the reference, as far as known."""
        moved = places + homogeneous(places) @ trend
        return moved if landmarks is None else by_landmarks(moved, *landmarks)

    cells = own_places(*session.read(CONFIDENCE).shape[2:])[0].astype(np.float64)
    rounds = ROUNDS if landmarks is None else 1
    if not (source.shows_something() and reference.shows_something()):
        rounds = 0
    try:
        for _ in range(rounds):
            session.set_reference(_seen_from(reference.planes, found))
            displacement = session.match(source.planes).astype(np.float64)
            both = source.shows(cells) & reference.shows(found(cells + displacement))
            further = affine_trend(displacement, both * session.read(CONFIDENCE)[0, 0])
            # First the new trend, which is of the source's own cells, then the old one.
            whole = np.eye(3) + np.pad(further, ((0, 0), (0, 1)))
            trend = bounded(further + whole @ trend)
        if rounds:
            session.set_reference(reference.planes)
    except BaseException:
        session.forget_reference()
        raise
    grid = found(cells)
    if landmarks is not None:
        grid += nearby(cells, landmarks.source, landmarks.reference - found(landmarks.source))
    return grid[None].astype(np.float32)


def affine_trend(
    displacement: NDArray[np.floating], confidence: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The affine displacement (x, y, 1) @ B that fits best: weighted least squares with a ridge.

    Args:
        displacement: (rows, columns, 2) of the cells, in points.
        confidence: (rows, columns), in [0, 1].

    Returns:
        B, (3, 2); 0 if no cell has confidence.
    """
    places = homogeneous(own_places(*confidence.shape)[0].astype(np.float64)).reshape(-1, 3)
    weighed = places.T * confidence.astype(np.float64).ravel()
    ridge = RIDGE * len(places) * np.eye(3)
    solved = np.linalg.solve(weighed @ places + ridge, weighed @ displacement.reshape(-1, 2))
    return np.asarray(solved, np.float64)


def bounded(trend: NDArray[np.float64]) -> NDArray[np.float64]:
    """The trend, scaling limited to MOST_LARGER and shift to FARTHEST; 0 for a trend that mirrors
    or is not finite."""
    if not np.isfinite(trend).all():
        return np.zeros_like(trend)
    linear, shift = np.eye(2) + trend[:2], trend[2]
    if np.linalg.det(linear) <= 0:
        return np.zeros_like(trend)
    left, sizes, right = np.linalg.svd(linear)
    linear = (left * np.clip(sizes, 1 / MOST_LARGER, MOST_LARGER)) @ right
    shift = shift * min(1.0, FARTHEST / max(float(np.hypot(*shift)), FARTHEST))
    return np.concatenate([linear - np.eye(2), shift[None]])


def homogeneous(places: Places) -> Places:
    """(..., 2) -> (..., 3): with a 1."""
    return np.concatenate([places, np.ones_like(places[..., :1])], axis=-1)


def _seen_from(reference: Planes, found: Callable[[Places], Places]) -> Planes:
    """The reference, warped to where the source has the same anatomy; its edge is repeated."""
    import cv2

    height, width = reference.shape[2:]
    places = found(own_places(height, width)[0].astype(np.float64))
    x, y = np.moveaxis(((places + 1) * (width, height) - 1) / 2, -1, 0).astype(np.float32)
    planes = [
        cv2.remap(plane, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in reference[0]
    ]
    return np.stack(planes)[None].astype(np.uint8)
