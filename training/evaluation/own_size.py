"""A clip at its own size: what is lost where the model's square is smaller than the picture.

The middle frame, at its own size, is driven by the others. A frame composed over it at that size
and the model's frame enlarged to it (bicubic: bilinear would blur it more than its size does) are
each compared with the real frame, which is never shrunk: sharpness, std(y - G_2 y) / std(x - G_2 x)
with a Gaussian of 2 of its own pixels, and the L1 ratio, sum |y - x| / sum |S - x|, over the pixels
where the mean of these frames exceeds 0.03.
"""

from __future__ import annotations

import cv2
import numpy as np

from ...runtime.compose import MOST_SIDE
from ...runtime.media.video import open_source
from ..data.dataset import ClipFrames
from .candidate import Candidate
from .fidelity import masked_sum
from .metrics import FloatImage, Mask, Spread, clip_mask, high_pass, ratio, to_float
from .reconstruction import Frames, OwnSize, OwnSizeMeasures, driven_frames

MOST_FRAMES = 16
"""More than so many of a large clip say little more."""
METHODS = ("composed", "enlarged")
"""The frame composed over the source at its own size; the model's frame enlarged to it."""


def at_own_size(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> OwnSize | None:
    """Drive a clip's middle frame with the clip itself, everything at the clip's own size.

    Args:
        max_frames: at most so many frames (never more than MOST_FRAMES).

    Returns:
        the measures by method, `composed` where the model has layers; None for a clip that is no
        larger than the model's frame, or too large to be composed: means of both methods are of
        the same clips.
    """
    box = clip.letterbox
    if not box.size < max(box.width, box.height) <= MOST_SIDE:
        return None
    middle, count = len(clip) // 2, min(max_frames or MOST_FRAMES, MOST_FRAMES)
    driving = driven_frames(len(clip), count)
    pictures = _read(clip, [middle, *driving], candidate.channels)
    source = pictures.pop(middle)
    mask = clip_mask(np.stack([source, *pictures.values()]))
    held = to_float(source)
    accounts = {
        name: _Account(held, mask) for name in METHODS if candidate.has_layers or name == "enlarged"
    }
    own = candidate.own
    own.set_source(source)
    own.set_reference(source)
    for picture in pictures.values():
        inside = box.inside(own.animate(picture))
        enlarged = cv2.resize(inside, (box.width, box.height), interpolation=cv2.INTER_CUBIC)
        frames = {"enlarged": np.asarray(enlarged, np.uint8)}
        if candidate.has_layers:
            frames["composed"] = own.compose(size="source")
        for name, account in accounts.items():
            account.add(to_float(frames[name]), to_float(picture))
    methods = {name: account.result() for name, account in accounts.items()}
    return OwnSize(box.width, box.height, len(driving), methods)


def _read(clip: ClipFrames, wanted: list[int], channels: int) -> dict[int, Frames]:
    """Frames of a clip by their place in it, in time order, cropped but not resized."""
    places = {int(clip.indices[t]): t for t in sorted(wanted)}
    found: dict[int, Frames] = {}
    with open_source(clip.clip.path, clip.clip.crop, channels) as source:
        for number, _, image in source:
            if number in places:
                found[places[number]] = image.copy()
            if len(found) == len(places):
                break
    return found


class _Account:
    """Accumulates one method."""

    def __init__(self, held: FloatImage, mask: Mask) -> None:
        self._held, self._mask = held, mask
        self._error, self._hold = 0.0, 0.0
        self._sharpness = Spread()

    def add(self, y: FloatImage, x: FloatImage) -> None:
        self._error += masked_sum(y - x, self._mask)
        self._hold += masked_sum(self._held - x, self._mask)
        self._sharpness.add(high_pass(y)[self._mask], high_pass(x)[self._mask])

    def result(self) -> OwnSizeMeasures:
        return OwnSizeMeasures(ratio(self._error, self._hold), self._sharpness.ratio())
