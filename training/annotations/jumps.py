"""Points that move much further from one labelled frame to the next than labels usually do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ..data.keypoints import Labels

_LEAST = 0.05  # of the extent of the clip's labels
_UNUSUAL = 8.0  # times the median
_COMMON = 3  # points that show how a whole frame moved
_NONE = (math.nan, math.nan)
_FAR = 25  # frames, after which a point does not get further away


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
    for name in dict.fromkeys(name for points in labels.values() for name in points):
        shown = [t for t in frames if not math.isnan(labels[t].get(name, _NONE)[0])]
        for before, frame in pairwise(shown):
            common = [n for n in labels[frame] if n in labels[before]]
            moved = np.array([np.subtract(labels[frame][n], labels[before][n]) for n in common])
            own = moved[common.index(name)]
            known = moved[np.isfinite(moved).all(axis=1)]
            if len(known) >= _COMMON:
                own = own - np.median(known, axis=0)
            pixels = float(np.hypot(*own))
            pace = pixels / min(frame - before, _FAR) ** 0.5
            yield Jump(clip, name, frame, before, pixels), pace, least
