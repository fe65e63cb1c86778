"""The times of a clip's frames."""

from __future__ import annotations

import math

from .support.errors import InputError

STEP_SECONDS = 1 / 30
"""The time between two frames that come without timestamps."""


class Clock:
    """Says how much later each frame is than the last one. Only a frame that succeeded moves it:
    `last` is for the caller to set, None before the first frame of a clip."""

    def __init__(self) -> None:
        self.last: float | None = None

    def step(self, timestamp: float | None) -> tuple[float, float]:
        """Seconds since the last frame, and the time that it is at a frame of that timestamp; None
        is STEP_SECONDS after the last.

        Raises:
            InputError: a time that is not finite, or not after the last frame's.
        """
        last = self.last
        if timestamp is None:
            return STEP_SECONDS, 0.0 if last is None else last + STEP_SECONDS
        if not math.isfinite(timestamp):
            raise InputError(f"a timestamp has to be finite, not {timestamp}")
        if last is None:
            return STEP_SECONDS, timestamp
        if timestamp <= last:
            raise InputError(
                f"the frame's time {timestamp:g} s is not after the last one's, {last:g} s",
                "timestamps increase within a clip; call reset() before another clip",
            )
        return timestamp - last, timestamp
