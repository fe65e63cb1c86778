"""Points that move much further from one labelled frame to the next than labels usually do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from statistics import median
from typing import NamedTuple

import numpy as np

from ..data.keypoints import Labels

_LEAST = 0.05  # of the extent of the clip's labels
_UNUSUAL = 8.0  # times the median
_COMMON = 3  # points that show how a whole frame moved
_FAR = 25  # frames, after which a point does not get further away
_NONE = (math.nan, math.nan)

Point = tuple[float, float]


class Jump(NamedTuple):
    """A suspect: the point's name, its frame, the labelled frame before, and how far it moved,
    in pixels, apart from the motion of the whole frame."""

    clip: str
    name: str
    frame: int
    before: int
    pixels: float


def find_jumps(clips: Mapping[str, Labels]) -> list[Jump]:
    """The jumps of all clips.

    A point's way from one labelled frame to the next, less the median way of the frame's points
    (of three or more), over the square root of the number of frames between them, as of a random
    walk, is compared with the median of all clips.
    """
    ways = [way for clip, labels in clips.items() for way in _ways(clip, labels)]
    paces = [pace for _, pace, _ in ways if pace > 0]
    usual = float(np.median(paces)) if paces else 0.0
    return [jump for jump, pace, least in ways if pace > _UNUSUAL * usual and jump.pixels > least]


def _ways(clip: str, labels: Labels) -> Iterator[tuple[Jump, float, float]]:
    """Each point's way from a labelled frame to the next, its pace, and what is not yet far."""
    every = [at for points in labels.values() for at in points.values()]
    places = [at for at in every if not math.isnan(at[0])]
    if not places:
        return
    least = _LEAST * float(np.ptp(places, axis=0).max())
    frames = sorted(labels)
    whole: dict[tuple[int, int], Point] = {}  # how far all points of a pair of frames moved
    for name in dict.fromkeys(name for points in labels.values() for name in points):
        shown = [t for t in frames if not math.isnan(labels[t].get(name, _NONE)[0])]
        for before, frame in pairwise(shown):
            if (before, frame) not in whole:
                whole[before, frame] = _common(labels[before], labels[frame])
            (x, y), (old_x, old_y), (by_x, by_y) = (
                labels[frame][name], labels[before][name], whole[before, frame],
            )  # fmt: skip
            pixels = math.hypot(x - old_x - by_x, y - old_y - by_y)
            pace = pixels / min(frame - before, _FAR) ** 0.5
            yield Jump(clip, name, frame, before, pixels), pace, least


def _common(old: Mapping[str, Point], new: Mapping[str, Point]) -> Point:
    """The median way of the points that both frames show; none where there are few."""
    both = [(old[name], new[name]) for name in old if name in new]
    ways = [(x - u, y - v) for (u, v), (x, y) in both if not math.isnan(x - u)]
    if len(ways) < _COMMON:
        return 0.0, 0.0
    return median(x for x, _ in ways), median(y for _, y in ways)
