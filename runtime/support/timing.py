"""How long the steps of a frame took, on the monotonic clock."""

from __future__ import annotations

from time import perf_counter_ns


class Spans(dict[str, float]):
    """Seconds of each named step of the last round, in the order of the names; 0 of those that it
    did not reach."""

    def start(self) -> None:
        """Begin a round: the clock runs for the first step."""
        self.update(dict.fromkeys(self, 0.0))
        self._from = perf_counter_ns()

    def lap(self, step: str) -> None:
        """End a step, which began when the one before it ended."""
        now = perf_counter_ns()
        self[step] = (now - self._from) / 1e9
        self._from = now
