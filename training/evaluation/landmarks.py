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
from ..data.clip_frames import ClipFrames
from .loop import Picture, Points
from .metrics import Image, finite_mean, to_levels

_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
_LUCAS_KANADE = {"winSize": (15, 15), "maxLevel": 3, "criteria": _CRITERIA}
_REACH, _SIDE = 6.0, 5  # a grid of 5 x 5 points, up to 6 px to each side
_LEAST, _MISS = 6, 1.0  # so many points must come back to within this many pixels


def labelled_pixels(clip: ClipFrames) -> Points:
    """The labels of a clip, (T, P, 2) pixels of the model's frame, nan where there is none."""
    pixels = points_to_pixels(clip.points.astype(np.float64), clip.letterbox.size)
    return np.where(clip.visible[..., None], pixels, np.nan)


def track(source: Image, frames: Sequence[Image], start: Points) -> Points:
    """Follow points from a source through the frames that come after it.

    Args:
        source: (H, W[, 3]).
        frames: T frames of the same size, in order.
        start: (P, 2) pixels, xy, of the source.

    Returns:
        (T, P, 2) pixels; nan for points that are not finite at the start.
    """
    known = np.isfinite(start).all(axis=1)
    at, before = start[known], to_levels(source)
    line = np.linspace(-_REACH, _REACH, _SIDE)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    path = np.full((len(frames), *start.shape), np.nan)
    for t, frame in enumerate(frames if len(at) else ()):
        now = to_levels(frame)
        at = at + _step(before, now, at, grid)
        path[t, known] = at
        before = now
    return path


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
    found = points.copy()  # overwritten: only a flag would make it the first guess
    at, status, _ = cv2.calcOpticalFlowPyrLK(here, there, points, found, **_LUCAS_KANADE)
    return at, status.astype(np.bool_)[..., None]


def by_landmark(
    names: Sequence[str], places: Mapping[str, Points], true: Points
) -> dict[str, dict[str, float]]:
    """Mean distances from the truth over frames, in pixels, by landmark and method.

    Args:
        names: of the P landmarks.
        places: by method (T, P, 2), or (P, 2) for one that holds still.
        true: (T, P, 2), nan where it is not known.

    Returns:
        of the landmarks that are known in some frame.
    """
    gaps = {name: np.linalg.norm(place - true, axis=-1) for name, place in places.items()}
    known = np.isfinite(gaps["hold"]).any(axis=0)
    return {
        name: {method: finite_mean(gap[:, i]) for method, gap in gaps.items()}
        for i, name in enumerate(names)
        if known[i]
    }


def mean_error(errors: Iterable[Mapping[str, float]]) -> dict[str, float] | None:
    """The mean over landmarks, or over clips, by method; None where there is none."""
    rows = list(errors)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else None
