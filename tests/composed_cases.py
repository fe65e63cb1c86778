"""Layers and pictures to compose frames of, on the host and on a GPU."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sonomime.runtime.session import own_places

LEVELS = 2
"""How far a frame of the kernel may be from OpenCV's, which rounds once more: what it reads, before
the gate. OpenCV 4 rounds where it reads too, to 1/32 of an enlarged pixel, and so errs by 1/64 of
the step to the next one, in both directions: in `speckle` the step is 36 levels at most, that makes
1.1. (White noise has steps of 146.) OpenCV 5 does not; with it a single level was seen."""


def speckle(width: int, height: int, *channels: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise as fine as a scanner's, of all levels."""
    noise = np.random.default_rng(seed).random((height, width, *channels), np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.0)
    levels: NDArray[np.uint8] = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return levels


def smooth_layers(
    rows: int, columns: int, channels: int = 1, seed: int = 0
) -> list[NDArray[np.float32]]:
    """Random ones: places up to some tenths away, some beyond the edge; gain of each channel."""
    random = np.random.default_rng(seed)

    def smooth(count: int, spread: float) -> Any:
        few = random.normal(0, spread, (4, 4, count)).astype(np.float32)
        large = cv2.resize(few, (columns, rows), interpolation=cv2.INTER_CUBIC)
        return large.reshape(rows, columns, count)

    places = [own_places(rows, columns) + smooth(2, 0.1) for _ in range(2)]
    planes = [(smooth(n, 0.2) + k).transpose(2, 0, 1) for n, k in ((channels, 1), (1, 0), (1, 1))]
    return [*places, *(np.ascontiguousarray(plane[None]) for plane in planes)]
