"""What every task drives: frames of a clip or pair, with what is known and what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.animator import Animator
from .metrics import FloatImage, Mask, deformation_flow

Picture = NDArray[np.uint8]
Points = NDArray[np.float64]
Row = dict[str, Any]
"""What was measured on one clip or pair, as results.json holds it."""

SAMPLES = 5
"""How many frames of a clip its strip shows."""


@dataclass
class Case:
    """A clip or pair of T frames as the model sees it, and what is known about it.

    Points are in pixels of the model's frame, nan where they are not known.
    """

    source: Picture  # (S, S[, 3])
    middle: int  # the source's place among the frames
    driving: Sequence[Picture]  # T times (S, S[, 3])
    truth: Sequence[Picture]
    mask: Mask  # (S, S), the pixels that count
    names: Sequence[str]  # of the P landmarks
    start: Points  # (P, 2), in the source
    points: Points  # (T, P, 2), in the truth
    flow: Callable[[int], tuple[FloatImage, Mask]] | None = None
    """Of a frame: the exact F(x->S) (S, S, 2) and where it holds; of a clip it may be unknown."""
    sector: Mask | None = None  # (S, S), where what is seen through the flow counts
    other: Sequence[Picture] | None = None  # of a pair: the truth with other scatterers
    reference: Points | None = None  # (P, 2), of a pair: in the driving clip's frame 0


@dataclass
class Frame:
    """A driving frame (H, W[, 3]), what its picture should show, and what the model makes."""

    number: int  # in its clip
    driving: Picture
    truth: Picture | None = None
    points: Points | None = None  # true landmarks (P, 2) in pixels, nan where unknown
    found: Points | None = None  # those found, for the pictures
    prediction: Picture | None = None  # after `drive`
    flow: FloatImage | None = None  # F(x->S) (H, W, 2), in pixels, after `drive`

    def drive(self, animator: Animator) -> Frame:
        """Animate an animator's source, relative to its reference."""
        self.prediction = animator.animate(self.driving)
        deformation = np.asarray(animator.read("deformation")[0], np.float32)
        size, geometry = self.driving.shape[:2], animator.session.chain.geometry
        self.flow = deformation_flow(deformation, *size, geometry)
        return self


def spread(indices: Sequence[Any], at_most: int | None) -> list[Any]:
    """At most so many of the indices, evenly spread, with the first and the last."""
    if at_most is None or len(indices) <= at_most:
        return list(indices)
    places = np.rint(np.linspace(0, len(indices) - 1, at_most)).astype(int)
    return [indices[i] for i in places]
