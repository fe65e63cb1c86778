"""The hand-over between what makes frames and what takes them: one place, the newest wins.

A queue would let a slow taker fall behind, and show it ever older frames.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Slot(Generic[Item]):
    """Holds the newest item until it is taken. `dropped` counts those that were replaced before."""

    def __init__(self) -> None:
        self.dropped = 0
        self._items: list[Item] = []  # none or one
        self._closed = False
        self._change = threading.Condition()

    def put(self, item: Item) -> None:
        """Never waits. Does nothing after `close`."""
        with self._change:
            if self._closed:
                return
            self.dropped += len(self._items)
            self._items = [item]
            self._change.notify()

    def take(self, timeout: float | None = None) -> Item | None:
        """The newest item, waited for; None after `close`, or after so many seconds without one."""
        with self._change:
            self._change.wait_for(lambda: self._items or self._closed, timeout)
            return self._items.pop() if self._items else None

    def close(self) -> None:
        """End the waiting. What was put before can still be taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Items as they come, until `close`."""
        while (item := self.take()) is not None:
            yield item
