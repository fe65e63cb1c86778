"""Pictures that the tests of media write and read."""

from __future__ import annotations

import numpy as np

LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(8, 0).repeat(8, 1)
"""All grey levels, in tiles of 8 x 8 pixels."""


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Absolute differences in grey levels."""
    return np.abs(one.astype(int) - other)
