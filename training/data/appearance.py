"""What differs between two frames besides motion: other speckle, other light, shadows.

Images are float32 (S, S) or (S, S, 3) in [0, 1]; each function returns new ones.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ..config import DataConfig

FloatArray = NDArray[np.float32]


def other_looks(
    source: FloatArray, driving: FloatArray, rng: np.random.Generator, data: DataConfig
) -> tuple[FloatArray, FloatArray]:
    """Make a frame and its own bend look as different as two frames do: a matcher trained on
    nothing else would follow speckle, which does not persist in real clips."""
    if data.speckle < 1:
        driving = other_speckle(driving, rng, data.speckle)
    if data.light > 0:
        source, driving = (other_light(image, rng, data.light) for image in (source, driving))
    if rng.uniform() < data.blackout:
        driving = blackout(driving, rng)
    return source, driving


def other_speckle(image: FloatArray, rng: np.random.Generator, least: float) -> FloatArray:
    """Mix the speckle with speckle from elsewhere in the image. The share that is kept varies over
    the picture from ``least`` (0 to 1) to 1."""
    low = cv2.GaussianBlur(image, (0, 0), 1.5)
    texture = image - low
    shift = rng.integers(3, 30, 2) * rng.choice([-1, 1], 2)
    elsewhere = np.roll(texture, tuple(int(s) for s in shift), axis=(0, 1))
    kept = np.clip(_smooth(rng.uniform(least, 1, (3, 3)), image), least, 1)  # a cubic overshoots
    mixed = low + kept * texture + np.sqrt(np.maximum(0, 1 - kept**2)) * elsewhere
    return np.clip(mixed, 0, 1).astype(np.float32)


def other_light(image: FloatArray, rng: np.random.Generator, strength: float) -> FloatArray:
    """Other gain, gamma and slow shading; ``strength``: standard deviation of the gain's log."""
    gain = np.exp(strength * (rng.normal() + _smooth(rng.normal(0, 0.6, (5, 5)), image)))
    gamma = float(np.exp(rng.normal(0, strength / 2)))
    return np.clip(gain * image**gamma, 0, 1).astype(np.float32)


def blackout(image: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Make one block of the image black, so that a model learns to fill in what is hidden."""
    side = image.shape[0]
    width, height = (int(n) for n in rng.integers(side // 16, side // 4, 2))
    x, y = int(rng.integers(side - width)), int(rng.integers(side - height))
    image = image.copy()
    image[y : y + height, x : x + width] = 0
    return image


def _smooth(grid: NDArray[np.float64], image: FloatArray) -> NDArray[np.float32]:
    """A coarse grid as a slow change over the whole image."""
    side = image.shape[0]
    field = cv2.resize(grid.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(field if image.ndim == 2 else field[..., None], np.float32)
