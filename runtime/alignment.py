"""Where in the reference frame a place of the source is: by landmarks of both pictures, and by
matching the two like frames of one clip.

Two subjects differ in size, shape and place, so the motion of a place in the source is read where
the same anatomy is in the reference. The displacements are used as they are, neither rotated nor
scaled.

The matcher follows tissue from frame to frame; between two subjects it finds what looks alike. What
it finds is too rough to use cell by cell, but its affine trend is better: weighted by confidence,
from cells that both pictures show, and limited. What then remains of the landmarks' offsets is
blended in.

Convention: half_pixel; points (x, y) in [-1, 1] of the letterboxed square; pixels (x, y) with 0 at
the centre of the first one. Source: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .bundle.manifest import ALIGNMENT, CONFIDENCE, DRIVING_FRAME, SOURCE_IMAGE
from .media.frames import Letterbox, shows_something
from .session import Planes, Session, own_places
from .support.errors import ConfigError, InputError

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

RIDGE = 1 / 512
"""Mean confidence at which a shift that all cells agree on counts for half. On 24 pairs of phantoms
outside of training, half and twice as much gave the same result to .01."""

FARTHEST = 0.5
"""Largest shift of a trend, in points: a quarter of the square."""

ROUNDS = 2
"""Rounds without landmarks; with them a second round does not help."""

Pair = tuple[Places, Places]
"""(K, 2) places of the same K landmarks in source and reference."""


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


class Aligner:
    """Aligns the source and the reference of a session.

    An alignment belongs to that pair: another source or reference drops it. A request made before
    there is a reference waits for the first one.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        # Landmarks in pixels, the source's letterbox, and whether to match the pictures.
        self._request: tuple[Pair | None, Letterbox, bool] | None = None
        # A copy: later driving frames overwrite the tensor that the reference was given in.
        self._reference: Framed | None = None

    def align(
        self, source: ArrayLike | None, reference: ArrayLike | None, pictures: bool, box: Letterbox
    ) -> None:
        """See `Animator.align`; `box` is the source's."""
        session, pair = self._session, None
        known = self._reference if session.has_reference else None
        if not session.can_align:
            hint = "only models that move by displacements can"
            raise ConfigError("this model cannot align source and reference", hint)
        if source is not None or reference is not None:
            there = known.box if known else None
            pair = _pixels(source, "source", box), _pixels(reference, "reference", there)
            count, other = map(len, pair)
            if count != other:
                what = f"there are {count} points of the source, {other} of the reference"
                raise InputError(what, "give every landmark in both pictures, in the same order")
        elif not (pictures and session.can_register):
            hint = "give landmarks of both; models with a confidence also match the two pictures"
            raise ConfigError("there is nothing to align source and reference by", hint)
        self._request = pair, box, pictures
        if known is not None:
            try:
                self._apply()
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """Read every place of the source at its own place again."""
        self._request = None
        self._session.align(None)

    def take_reference(self, box: Letterbox) -> None:
        """Make the driving frame that was given the reference, and align it if that was waited for;
        InputError if points that waited lie outside of it."""
        session = self._session
        if session.has_reference:
            self.drop()
        if self._request is not None and (pair := self._request[0]) is not None:
            _pixels(pair[1], "reference", box)
        session.set_reference()
        # What is not matched may stay on a GPU.
        planes = session.read(DRIVING_FRAME) if session.can_register else np.empty(0, np.uint8)
        self._reference = Framed(planes, box)
        if self._request is not None:
            self._apply()

    def _apply(self) -> None:
        assert self._request is not None and self._reference is not None
        session, (pair, box, pictures) = self._session, self._request
        if pair is not None:
            reference = pixels_to_points(pair[1], self._reference.box)
            pair = pixels_to_points(pair[0], box), reference
        if pictures and session.can_register:
            source = Framed(session.read(SOURCE_IMAGE), box)
            session.align(registered(session, source, self._reference, pair))
        elif pair is not None:
            cells = own_places(*session.read(ALIGNMENT).shape[1:3]).astype(np.float64)
            session.align(by_landmarks(cells, *pair).astype(np.float32))


def registered(
    session: Session, source: Framed, reference: Framed, landmarks: Pair | None
) -> NDArray[np.float32]:
    """Where in the reference each cell of the source is found, (1, rows, columns, 2) points.

    Warped pictures replace the session's reference meanwhile; at the end it is the true one again,
    with fresh states. If a stage fails (BackendError), there is none.

    Args:
        landmarks: points where to begin; None is each cell's own place.
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
        grid += nearby(cells, landmarks[0], landmarks[1] - found(landmarks[0]))
    return grid[None].astype(np.float32)


def affine_trend(
    displacement: NDArray[np.floating], confidence: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The (3, 2) matrix B whose affine displacement (x, y, 1) @ B fits best: weighted least squares
    with a ridge. 0 if no cell has confidence.

    Args:
        displacement: (rows, columns, 2) of the cells, in points.
        confidence: (rows, columns), in [0, 1].
    """
    places = homogeneous(own_places(*confidence.shape)[0].astype(np.float64)).reshape(-1, 3)
    weighed = places.T * confidence.astype(np.float64).ravel()
    ridge = RIDGE * len(places) * np.eye(3)
    solved = np.linalg.solve(weighed @ places + ridge, weighed @ displacement.reshape(-1, 2))
    return np.asarray(solved, np.float64)


def bounded(trend: NDArray[np.float64]) -> NDArray[np.float64]:
    """The trend, scaling limited to MOST_LARGER and shift to FARTHEST; 0 for a trend that mirrors
    or is not finite."""
    linear, shift = np.eye(2) + trend[:2], trend[2]
    if not np.isfinite(trend).all() or np.linalg.det(linear) <= 0:
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
    edge = cv2.BORDER_REPLICATE
    planes = [cv2.remap(each, x, y, cv2.INTER_LINEAR, borderMode=edge) for each in reference[0]]
    return np.array([planes], np.uint8)


def _pixels(points: ArrayLike | None, what: str, box: Letterbox | None) -> Places:
    """Points (K, 2) of the caller; where the picture is known, they lie on it."""
    try:
        pixels = np.array(points, np.float64)
    except (TypeError, ValueError):
        pixels = np.empty(0)
    shaped = pixels.ndim == 2 and pixels.shape[1] == 2 and len(pixels) > 0
    if not (shaped and np.isfinite(pixels).all()):
        what = f"the points of the {what} are not (K, 2) finite numbers"
        raise InputError(what, "give (x, y) for each landmark")
    for index, (x, y) in enumerate(pixels):
        if box is not None and not is_inside(np.array((x, y)), box.width, box.height):
            raise InputError(
                f"point {index} of the {what}, ({x:g}, {y:g}), lies outside of its picture of "
                f"{box.width} x {box.height} pixels",
                "points are (x, y) in pixels of the picture, from 0",
            )
    return pixels
