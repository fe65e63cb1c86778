"""The order in which a rater sees the clips, with some of them twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

_TRIES = 2000


def draw_order(
    clips: Sequence[str],
    arm: Mapping[str, str],
    case: Mapping[str, str],
    repeats: int,
    rng: np.random.Generator,
) -> tuple[str, ...]:
    """A random order of all clips, some of them in both of its halves: the hidden repeats.

    Orders are drawn until no case comes twice in a row and a clip's repeat comes late enough: after
    a quarter of the clips, or after ten. Where none is found, the best one is taken.

    Args:
        clips: their names; `arm` and `case`: of each.
        repeats: how many clips are shown twice, at most `len(clips)`: as many of each arm as of any
            other, or one more.
    """
    best, least = tuple[str, ...](), np.inf
    apart = min(len(clips) // 4, 10)
    for _ in range(_TRIES):
        shown = [clips[i] for i in rng.permutation(len(clips))]
        twice = _evenly(shown, arm, repeats)
        others = [clip for clip in shown if clip not in twice]
        early = max(len(clips) // 2 - repeats, 0)  # of the others
        halves = twice + others[:early], twice + others[early:]
        order = tuple(half[i] for half in halves for i in rng.permutation(len(half)))
        faults = sum(case[a] == case[b] for a, b in pairwise(order))
        for clip in twice:
            first = order.index(clip)
            faults += order.index(clip, first + 1) - first <= apart
        if faults < least:
            best, least = order, faults
        if faults == 0:
            break
    return best


def _evenly(clips: Sequence[str], arm: Mapping[str, str], count: int) -> list[str]:
    """Some of the clips, arm by arm in turn; each time the clip that comes first."""
    turns = dict.fromkeys(arm.values(), 0)
    ranked = []
    for place, clip in enumerate(clips):
        ranked.append((turns[arm[clip]], place, clip))
        turns[arm[clip]] += 1
    return [clip for *_, clip in sorted(ranked)[:count]]
