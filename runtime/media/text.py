"""Places where text seems to be burned into a clip: names of patients, dates, settings.

A help, not a guarantee: text can be missed, a name of a patient too, and other marks are taken for
text. What is found are rows of marks of one height that stand still while tissue moves; their
strokes are thin, of strong contrast, and as close together as those of letters. Missed is what is
lower than five pixels or slanted, single letters, and what does not stand in all of the frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .frames import Crop, Image, to_channels

_MOVES = 1.0
"""Mean difference from the first frame, in grey levels, of a clip in which something moves."""
_CONTRAST, _CONTRAST_STILL = 30, 70
"""Grey levels by which a stroke differs from what is around it, in every frame. Where nothing moves
only its contrast tells text from tissue."""
_STILL = 40
"""Grey levels by which half of a text's strokes change, at most. Even tissue that hardly moves, as
below the probe, mostly changes more."""
_LOWEST, _HIGHEST = 5, (32, 0.08)  # height of letters: pixels; or share of the longer side
_MET, _DENSE = 2.5, 0.9  # strokes that a line across a row meets: in all, in one height of it


def find_text(frames: Sequence[Image]) -> list[Crop]:
    """Where there may be text, from top to bottom, in pixels of the frames.

    Args:
        frames: some frames of one clip, of one size, (H, W) or (H, W, 3). About ten, evenly spread,
            serve best.
    """
    greys = [to_channels(frame, 1) for frame in frames]
    span = np.max(greys, axis=0) - np.min(greys, axis=0)
    boxes = [
        box
        for strokes in _strokes(greys)
        for box in _rows(strokes)
        if np.median(span[_at(box)][strokes[_at(box)] > 0]) <= _STILL
    ]
    return sorted(_joined(boxes), key=lambda box: (box.y, box.x))


def _strokes(frames: list[Image]) -> list[NDArray[np.uint8]]:
    """Where every frame has a bright stroke, and where each has a dark one: 1, else 0; (H, W)."""
    import cv2

    moved = max(float(cv2.absdiff(frames[0], frame).mean()) for frame in frames)
    contrast = _CONTRAST if moved > _MOVES else _CONTRAST_STILL
    wide = max(7, max(frames[0].shape) // 120 | 1)  # wider than a stroke
    kernel = np.ones((wide, wide), np.uint8)
    found = []
    for method in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        least = np.full(frames[0].shape, 255, np.uint8)
        for frame in frames:
            np.minimum(least, cv2.morphologyEx(frame, method, kernel), out=least)
        found.append(np.asarray(least >= contrast, np.uint8))
    return found


def _rows(strokes: NDArray[np.uint8]) -> list[Crop]:
    """Boxes around letters that stand beside each other."""
    import cv2

    tallest = max(_HIGHEST[0], _HIGHEST[1] * max(strokes.shape))
    _, _, stats, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    # Small letters touch each other in a compressed clip: a mark may be a whole word.
    marks = stats[1:, :4]
    marks = marks[(marks[:, 3] >= _LOWEST) & (marks[:, 3] <= tallest)]
    marks = marks[np.argsort(marks[:, 0], kind="stable")]
    x, y, w, h = marks.T
    rows: list[list[Crop]] = [[] for _ in marks]  # by the row's last mark
    for place, mark in enumerate(marks):
        high, low = np.maximum(h[:place], mark[3]), np.minimum(h[:place], mark[3])
        shared = np.minimum((y + h)[:place], mark[1] + mark[3]) - np.maximum(y[:place], mark[1])
        gap = mark[0] - (x + w)[:place]
        fits = (high <= 1.8 * low) & (shared >= 0.6 * low) & (gap >= -1) & (gap <= 1.2 * high)
        before = next((at for at in np.flatnonzero(fits)[::-1] if rows[at]), place)
        rows[before], rows[place] = [], [*rows[before], Crop(*map(int, mark))]
    # Where all marks are narrow they are ticks of a scale.
    boxes = [_around(row) for row in rows if any(mark.w > 0.4 * mark.h for mark in row)]
    return [box for box in boxes if _is_dense(strokes, box)]


def _is_dense(strokes: NDArray[np.uint8], box: Crop) -> bool:
    """Whether lines across it meet as many strokes as in letters; streaks of tissue are long."""
    inside = np.pad(strokes[_at(box)], ((0, 0), (1, 0)))
    met = float((inside[:, 1:] > inside[:, :-1]).sum()) / box.h
    return met >= max(_MET, _DENSE * box.w / box.h)


def _at(box: Crop) -> tuple[slice, slice]:
    return slice(box.y, box.y + box.h), slice(box.x, box.x + box.w)


def _around(boxes: Sequence[Crop]) -> Crop:
    x, y = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.w for box in boxes), max(box.y + box.h for box in boxes)
    return Crop(x, y, right - x, bottom - y)


def _joined(boxes: list[Crop]) -> list[Crop]:
    """What overlaps, and the words of one line, become one box."""
    done: list[Crop] = []
    for box in sorted(boxes):
        while near := [other for other in done if _touch(other, box)]:
            done = [other for other in done if other not in near]
            box = _around([*near, box])
        done.append(box)
    return done


def _touch(one: Crop, other: Crop) -> bool:
    across = max(one.x, other.x) - min(one.x + one.w, other.x + other.w)
    down = max(one.y, other.y) - min(one.y + one.h, other.y + other.h)
    return across <= max(one.h, other.h) and down < 0
