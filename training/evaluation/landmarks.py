"""Follows landmarks through a clip without the model's help.

Pyramidal Lucas-Kanade (Lucas and Kanade 1981; Bouguet 2000) from frame to frame, on a grid of
points around each landmark. Points whose way there and back does not lead home are dropped (Kalal
et al. 2010). The landmark moves by the mean of the rest; it stays when too few are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..coordinates import points_to_pixels
from ..data.dataset import ClipFrames
from .metrics import Image, to_levels

Points = NDArray[np.float64]
Picture = NDArray[np.uint8]

_WINDOW, _LEVELS = 15, 3  # side of a Lucas-Kanade window in pixels, levels of the pyramid
_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
_REACH, _SIDE = 6.0, 5  # a grid of 5 x 5 points, up to 6 px to each side
_LEAST, _MISS = 6, 1.0  # so many points must come back to within this many pixels


def labelled_pixels(clip: ClipFrames) -> Points:
    """The labels of a clip, (T, P, 2) pixels of the model's frame, nan where there is none."""
    pixels = points_to_pixels(clip.points.astype(np.float64), clip.letterbox.size)
    return np.where(clip.visible[..., None], pixels, np.nan)


def track(source: Image, frames: Iterable[Image], start: Points) -> Points:
    """Follow points from a source through the frames that come after it.

    Args:
        source: (H, W[, 3]).
        frames: T frames of the same size, in order.
        start: (P, 2) pixels, xy, of the source.

    Returns:
        (T, P, 2) pixels; points that are not finite at the start stay so.
    """
    at = np.array(start, np.float64)
    known = np.isfinite(at).all(axis=1)
    line = np.linspace(-_REACH, _REACH, _SIDE)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    before = to_levels(source)
    path = []
    for frame in frames:
        now = to_levels(frame)
        if known.any():
            at[known] += _step(before, now, at[known], grid)
        path.append(at.copy())
        before = now
    return np.stack(path) if path else np.zeros((0, *at.shape))


def _step(before: Picture, now: Picture, at: Points, grid: Points) -> Points:
    cluster = (at[:, None] + grid).astype(np.float32)
    here = cluster.reshape(-1, 1, 2)
    there, found = _flow(before, now, here)
    home, returned = _flow(now, before, there)
    miss = np.linalg.norm(home - here, axis=-1).reshape(cluster.shape[:2])
    ok = (miss < _MISS) & (found & returned).reshape(miss.shape)
    moves = (there - here).reshape(cluster.shape).astype(np.float64)
    count = ok.sum(axis=1)
    total = np.where(ok[..., None], moves, 0).sum(axis=1)
    return np.where(count[:, None] >= _LEAST, total / np.maximum(count, 1)[:, None], 0.0)


def _flow(
    here: Picture, there: Picture, points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    at, status, _ = cv2.calcOpticalFlowPyrLK(
        here,
        there,
        points,
        points.copy(),  # overwritten: only a flag would make it the first guess
        winSize=(_WINDOW, _WINDOW),
        maxLevel=_LEVELS,
        criteria=_CRITERIA,
    )
    return np.asarray(at, np.float32), status.astype(np.bool_)[..., None]


def measure(
    names: Sequence[str], start: Points, true: Points, tracks: Mapping[str, Points]
) -> dict[str, dict[str, float]]:
    """Mean distances from the truth over frames, in pixels, by landmark and method.

    Args:
        names, start: P names, and places (P, 2) in the source.
        true: (T, P, 2), nan where it is not known.
        tracks: (T, P, 2) by method; `hold`, which needs no tracker, is added.

    Returns:
        of the landmarks that are known at the start and in some frame.
    """
    errors = {}
    gaps = {name: np.linalg.norm(path - true, axis=-1) for name, path in tracks.items()}
    gaps["hold"] = np.linalg.norm(start - true, axis=-1)
    for i, name in enumerate(names):
        known = np.isfinite(gaps["hold"][:, i])
        if known.any():
            errors[name] = {method: float(gap[known, i].mean()) for method, gap in gaps.items()}
    return errors


def mean_error(errors: Iterable[Mapping[str, float]]) -> dict[str, float] | None:
    """The mean over landmarks, or over clips, by method; None where there is none."""
    rows = list(errors)
    if not rows:
        return None
    means = np.mean([list(row.values()) for row in rows], axis=0).tolist()
    return dict(zip(rows[0], means, strict=True))
