"""Feeds that a test gives frames to by hand, and waiting for what happens in threads."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any

from sonomime.runtime.live.feed import Feed


def until(true: Callable[[], object]) -> Any:
    """Wait for it, and return it; fail after a time that no machine needs."""
    end = time.monotonic() + 60
    while not (value := true()):
        assert time.monotonic() < end
        time.sleep(0.002)
    return value


class HandFeed(Feed):
    """Live; `give` an image, or an exception that ends it. `turn`: of frames to come."""

    turn = 0

    def __init__(self, name: str = "by hand") -> None:
        self.given: queue.Queue[Any] = queue.Queue()
        super().__init__(name, self._hand_on)

    def give(self, item: Any) -> None:
        self.given.put(item)

    def _hand_on(self, feed: Feed) -> None:
        while not self.stopped:
            try:
                item = self.given.get(timeout=0.005)
            except queue.Empty:
                continue
            if isinstance(item, Exception):
                raise item
            self.arrived(item, (now := time.perf_counter()), now, self.turn)
