"""How calm the motion is to be; the filter itself is in the stage `transfer`."""

from __future__ import annotations

import math
from typing import NamedTuple

from .support.errors import ConfigError


class Smoothing(NamedTuple):
    """One-Euro smoothing of keypoints or displacements (Casiez, Roussel and Vogel 2012).

    `min_cutoff` in Hz: lower is calmer at rest; `beta` in Hz per (unit/s), the picture being two
    units wide: higher follows fast motion with less lag.
    """

    min_cutoff: float = 1.5
    beta: float = 10.0


def as_smoothing(smooth: Smoothing | tuple[float, float] | bool | None) -> Smoothing | None:
    """What `smooth` means: None or False for none, True for the defaults, or the two numbers.

    Raises:
        ConfigError: something else, or numbers out of range.
    """
    if smooth is None or smooth is False:
        return None
    if smooth is True:
        return Smoothing()
    try:
        min_cutoff, beta = (float(value) for value in smooth)
        chosen = Smoothing(min_cutoff, beta)
    except (TypeError, ValueError):
        raise ConfigError(f"smooth {smooth!r} is not (min_cutoff, beta)") from None
    if not (0 < chosen.min_cutoff < math.inf and 0 <= chosen.beta < math.inf):
        raise ConfigError("smoothing needs min_cutoff above 0 Hz and beta of at least 0")
    return chosen
