"""Streams of one program take turns, so that each frame has a core of its own.

Without turns the frames of all streams are made at the same time, and each takes as many times as
long as there are too few cores.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """At most so many frames at once; whoever's frame was due first is next. Give the same one to
    all streams of a program::

        turns = Turns(default_threads() // threads)
    """

    def __init__(self, places: int) -> None:
        """`places`: how many, at least 1."""
        self._free = max(1, places)
        self._waiting: list[tuple[float, int]] = []
        self._numbers = itertools.count()
        self._change = threading.Condition()

    @contextmanager
    def take(self, due: float) -> Iterator[None]:
        """Wait for a place, and have it for the block. due: by time.perf_counter()."""
        mine = due, next(self._numbers)
        with self._change:
            heapq.heappush(self._waiting, mine)
            try:
                self._change.wait_for(lambda: self._free > 0 and self._waiting[0] == mine)
                self._free -= 1
            finally:  # a signal may end the waiting
                self._waiting.remove(mine)
                heapq.heapify(self._waiting)
                self._change.notify_all()
        try:
            yield
        finally:
            with self._change:
                self._free += 1
                self._change.notify_all()
