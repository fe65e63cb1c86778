"""How long the steps of a frame took, on the monotonic clock."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter_ns


class Spans(dict[str, float]):
    """Seconds of each named step of the last round, in the order of the names; 0 of those that it
    did not reach."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(dict.fromkeys(names, 0.0))
        self._names = tuple(names)
        self._from = 0

    def start(self) -> None:
        """Begin a round: the clock runs for the first step."""
        self.update(dict.fromkeys(self._names, 0.0))
        self._from = perf_counter_ns()

    def lap(self, step: int) -> None:
        """End the step of that number, which began when the one before it ended."""
        now = perf_counter_ns()
        self[self._names[step]] = (now - self._from) / 1e9
        self._from = now
