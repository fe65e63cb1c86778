"""Scene cuts in a stream of driving frames.

Frames are compared with the one before at 32 x 32 pixels, by the correlation of their grey levels.
On the clips that the default model was made of it stays above .7 from frame to frame; between two
of them it is below .46 in three quarters of the pairs. A cut between pictures that look alike is
not noticed: then frames are doubtful, and the reference is taken again by hand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..media.frames import Image, resize, shows_something, to_channels

SIDE = 32
ALIKE = 0.6
"""Correlation with the frame before, below which a frame begins another scene."""
SETTLE = 2
"""Frames in a row that are alike, before the new scene is taken: a cut may be faded."""


class Cuts:
    """Give it every frame; it says at which one a new scene has begun."""

    def __init__(self) -> None:
        self._last: NDArray[np.float32] | None = None
        self._left = 0  # frames to go until the new scene is taken
        self._turn = 0

    def begun(self, image: Image, turn: int = 0) -> bool:
        """Whether a new scene has begun and settled. Black frames are passed over. `turn`: how
        often a clip has begun again; its end and its beginning need not be alike."""
        if turn != self._turn:
            self._turn, self._last, self._left = turn, None, 0
        if not shows_something(image):
            return False
        small = resize(to_channels(image, 1), SIDE, SIDE).astype(np.float32)
        small -= small.mean()
        small /= max(float(np.linalg.norm(small)), 1e-6)
        last, self._last = self._last, small
        if last is None:
            return False
        if float((small * last).sum()) < ALIKE:
            self._left = SETTLE
        elif self._left:
            self._left -= 1
            return self._left == 0
        return False
