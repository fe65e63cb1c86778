"""The times of a driving clip's frames, which increase from frame to frame."""

from __future__ import annotations

import math

from .support.errors import InputError

STEP_SECONDS = 1 / 30
"""The time between two frames that come without timestamps."""


class Clock:
    """`last`: seconds of the last frame; None before the first."""

    def __init__(self) -> None:
        self.last: float | None = None

    def next(self, timestamp: float | None) -> tuple[float, float]:
        """Seconds since the last frame, STEP_SECONDS for the first one; and the next frame's time.

        Raises:
            InputError: it is not finite, or does not increase.
        """
        if timestamp is None:
            return STEP_SECONDS, 0.0 if self.last is None else self.last + STEP_SECONDS
        if not math.isfinite(timestamp) or (self.last is not None and timestamp <= self.last):
            raise InputError(
                f"the frame's time is {timestamp:g} s, the last one's {self.last or 0:g}",
                "times are finite and increase within a clip; call reset() before another clip",
            )
        return STEP_SECONDS if self.last is None else timestamp - self.last, timestamp
