"""The times of a clip's frames."""

from __future__ import annotations

import math

from .support.errors import InputError

STEP_SECONDS = 1 / 30
"""The time between two frames that come without timestamps."""


def frame_time(last: float | None, timestamp: float | None) -> tuple[float, float]:
    """Seconds since the last frame, and the time of the next one.

    Args:
        last: the last frame's time; None for the first frame of a clip.
        timestamp: the next frame's; None is STEP_SECONDS after the last.

    Raises:
        InputError: a time that is not finite, or not after the last frame's.
    """
    if timestamp is None:
        return STEP_SECONDS, 0.0 if last is None else last + STEP_SECONDS
    if not math.isfinite(timestamp):
        raise InputError(f"a timestamp has to be finite, not {timestamp}")
    if last is not None and timestamp <= last:
        raise InputError(
            f"the frame's time {timestamp:g} s is not after the last one's, {last:g} s",
            "timestamps increase within a clip; call reset() before another clip",
        )
    return STEP_SECONDS if last is None else timestamp - last, timestamp
