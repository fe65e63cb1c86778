"""How long things took: named spans on the monotonic clock, cheap enough for every frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter_ns


class Spans(Mapping[str, float]):
    """Seconds of each named step of the last round, as a mapping in the order of the names.

    `start` opens a round, `lap(i)` closes step i: it ends now and began when the one before it
    ended. Steps that were not reached read 0.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._index = {name: i for i, name in enumerate(names)}
        self._ns = [0] * len(names)
        self._from = 0

    def start(self) -> None:
        """Begin a round: all steps are 0, and the clock runs."""
        for i in range(len(self._ns)):
            self._ns[i] = 0
        self._from = perf_counter_ns()

    def lap(self, step: int) -> None:
        """End the step of that number."""
        now = perf_counter_ns()
        self._ns[step] = now - self._from
        self._from = now

    def __getitem__(self, name: str) -> float:
        return self._ns[self._index[name]] / 1e9

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        steps = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in self.items())
        return f"Spans({steps})"
