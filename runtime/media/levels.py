"""Stored values become grey levels: which value is black and which is white.

Eight bits are taken as they are. Deeper values are stored in words that are wider than what was
recorded (10 bits in 16, say), so their range has to be found, or the picture is black.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..support.errors import ConfigError
from .frames import Image

_BITS = (8, 10, 12, 14, 16)
"""How many bits machines record. Values have the least of these that holds the largest one."""


FLAT = 16
"""Deep whole numbers that differ by less show nothing."""


class Window(NamedTuple):
    """The values that become grey level 0 and 255; those beyond become 0 and 255 too. `low` is the
    larger one where small values are white."""

    low: float
    high: float

    def inverted(self) -> Window:
        """The same values, white to black."""
        return Window(self.high, self.low)


def parse_window(text: str) -> Window:
    """Read "LOW,HIGH" in stored values.

    Raises:
        ConfigError: not two finite numbers, or the second is not the larger.
    """
    hint = "write it as LOW,HIGH in stored values, for example 0,4095"
    try:
        window = Window(*(float(part) for part in text.split(",")))
    except (TypeError, ValueError):
        raise ConfigError(f"cannot read the window {text!r}", hint) from None
    if not (np.isfinite(window).all() and window.low < window.high):
        raise ConfigError(f"the window {text!r} is empty", hint)
    return window


def found_window(pictures: Sequence[NDArray[Any]], at_least: int = 1) -> Window | None:
    """The range of pictures that do not say it; None for eight bits, which need none.

    Unsigned words: 0 to the largest value of the least number of bits (8, 10, 12, 14, 16) that
    holds all of them, and that is `at_least` so many. All other types: smallest to largest value.
    """
    kind = pictures[0].dtype
    if kind == np.uint8:
        return None
    if kind == np.uint16:
        most = max(int(picture.max()) for picture in pictures)
        bits = next(bits for bits in _BITS if bits >= at_least and most < 1 << bits)
        return Window(0, (1 << bits) - 1)
    finite = [picture[np.isfinite(picture)] for picture in pictures]
    if not any(values.size for values in finite):
        return Window(0, 1)
    return Window(
        min(float(values.min()) for values in finite if values.size),
        max(float(values.max()) for values in finite if values.size),
    )


def is_flat(values: NDArray[Any]) -> bool:
    """Whether deep values show nothing: whole numbers that hardly differ, or others all alike."""
    spread = np.ptp(values)
    return bool(spread < FLAT) if values.dtype.kind in "iu" else bool(spread == 0)


def to_levels(values: NDArray[Any], window: Window | None) -> Image:
    """Values of any type and shape as grey levels: (v - low) / (high - low) * 255, rounded, within
    0..255; not-a-number becomes 0. Without a window they have to be uint8."""
    if window is None:
        return values
    low, high = window
    scale = 255 / (high - low) if high != low else 0.0
    if values.dtype in (np.uint8, np.uint16):  # few values: a table is exact and quick
        every = np.arange(1 << 8 * values.dtype.itemsize, dtype=np.float64)
        table = np.clip(np.rint((every - low) * scale), 0, 255).astype(np.uint8)
        return np.take(table, values)
    with np.errstate(over="ignore", invalid="ignore"):
        levels = np.rint((values.astype(np.float64) - low) * scale)
    levels = np.clip(np.nan_to_num(levels, nan=0, posinf=255, neginf=0), 0, 255)
    return np.asarray(levels, np.uint8)
