"""Images as arrays: rows of pixels for people, planes for stages, and how far apart two are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def to_planes(image: Image) -> Image:
    """(S, S) or (S, S, 3) -> (1, C, S, S), contiguous."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None])


def to_image(planes: NDArray[np.uint8]) -> Image:
    """(1, C, S, S) -> (S, S) or (S, S, 3), a copy."""
    return np.array(planes[0, 0] if planes.shape[1] == 1 else planes[0].transpose(1, 2, 0))


def levels_apart(found: NDArray[Any], wanted: NDArray[Any]) -> int:
    """Largest difference of two uint8 images of one shape, in grey levels."""
    return int(np.abs(found.astype(np.int16) - wanted.astype(np.int16)).max())


def psnr(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Peak signal-to-noise ratio of two uint8 images, dB; infinite for equal ones."""
    error = float(np.mean(np.square(found.astype(np.float64) - wanted.astype(np.float64))))
    return 10 * math.log10(255**2 / error) if error else math.inf
