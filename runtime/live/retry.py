"""How long to wait before the next try: longer each time, until one works."""

from __future__ import annotations

SOONEST, LATEST = 0.25, 8.0  # seconds


class Retry:
    def __init__(self) -> None:
        self._next = SOONEST

    def worked(self) -> None:
        self._next = SOONEST

    def pause(self) -> float:
        """Seconds to wait now."""
        now, self._next = self._next, min(2 * self._next, LATEST)
        return now
