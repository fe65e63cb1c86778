"""The hand-over between what makes frames and what takes them: one place, the newest wins.

A queue would let a slow taker fall behind, and show it ever older frames.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
_REST = "\0"  # the kind of what is left of an item


class Slot(Generic[Item]):
    """Holds the newest item of each kind until it is taken. `dropped` counts, by kind, those that
    were replaced before."""

    def __init__(self, at_once: Callable[[Item], Item | None] | None = None) -> None:
        """
        Args:
            at_once: while the taker waits for an item, uses it in the thread that puts it, which
                saves a change of threads. Never waits; returns what is left for the taker.
        """
        self.dropped: Counter[str] = Counter()
        self._items: dict[str, Item] = {}
        self._at_once = at_once
        self._idle = False  # the taker waits, and there is nothing to take
        self._closed = False
        self._change = threading.Condition()

    def put(self, item: Item, kind: str = "") -> None:
        """Never waits. Does nothing after `close`."""
        with self._change:
            if self._closed:
                return
            if self._idle and self._at_once is not None:
                if (left := self._at_once(item)) is None:
                    return
                item, kind = left, _REST  # which nothing newer can replace
            self._idle = False
            self.dropped[kind] += kind in self._items
            self._items[kind] = item
            self._change.notify_all()

    def hand(self, item: Item) -> None:
        """Wait until the place is empty, or until `close`, and put the item there."""
        with self._change:
            self._change.wait_for(lambda: not self._items or self._closed)
            self.put(item)

    def take(self, timeout: float | None = None) -> Item | None:
        """The newest item, waited for; None after `close`, or after so many seconds without one. Of
        several kinds, the one that has waited longest."""
        with self._change:
            self._idle = not self._items
            self._change.wait_for(lambda: self._items or self._closed, timeout)
            self._idle = False
            if not self._items:
                return None
            self._change.notify_all()
            return self._items.pop(next(iter(self._items)))

    def close(self) -> None:
        """End the waiting. What was put before can still be taken."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Items as they come, until `close`."""
        while (item := self.take()) is not None:
            yield item
