"""A share of the labelled frames (``data.label_share``): how few labels does a model need?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .clip_frames import ClipFrames

_STREAM = 7  # of random numbers: apart from those of the batches


def labelled_frames(clips: Sequence[ClipFrames]) -> int:
    """How many frames have labels."""
    return sum(int((clip.visible | clip.absent).any(axis=1).sum()) for clip in clips)


def keep_labels(clips: Sequence[ClipFrames], share: float, seed: int) -> list[ClipFrames]:
    """Forget the labels of all frames but a share of the labelled ones; at least one frame keeps
    them if the share is above 0.

    The seed gives the labelled frames an order, in which every clip has a first frame before one
    has a second; the share is the beginning of it. So what is kept at 5 % is kept at 20 % too, and
    a clip's name decides, not its place in the list.
    """
    if share == 1:
        return list(clips)
    rng = np.random.default_rng([seed, _STREAM])
    order: list[tuple[int, int, int, int]] = []  # turn, place in it, clip, frame
    for index in sorted(range(len(clips)), key=lambda i: clips[i].clip.name):
        labelled = np.flatnonzero((clips[index].visible | clips[index].absent).any(axis=1))
        for turn, frame in enumerate(rng.permutation(labelled)):
            order.append((turn, int(rng.integers(2**62)), index, int(frame)))
    count = max(1, round(share * len(order))) if share > 0 else 0
    kept = [np.zeros(len(clip), np.bool_) for clip in clips]
    for _, _, index, frame in sorted(order)[:count]:
        kept[index][frame] = True
    return [
        replace(clip, visible=clip.visible & mask[:, None], absent=clip.absent & mask[:, None])
        for clip, mask in zip(clips, kept, strict=True)
    ]
