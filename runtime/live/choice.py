"""Which source picture a stream shows: a file's, one that a program gives, a live one's newest."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeAlias

from ..landmarks import Picture
from ..support.errors import ConfigError, InputError
from .feed import Feed
from .pairs import Sources, Still

Read: TypeAlias = Callable[[], Still]
"""Reads a source picture, in another thread; may raise InputError."""


class Choice:
    """`still` reads what was chosen last; None: a live source's first frame has not come. `live` is
    that source, if it is one."""

    def __init__(self, source: Still | Feed, every: float | None, sources: Sources | None) -> None:
        """
        Args:
            every: seconds after which a live source's newest frame is chosen.
            sources: what can be chosen by name.
        """
        self.live = source if isinstance(source, Feed) else None
        self.still: Read | None = None if isinstance(source, Feed) else (lambda: source)
        self._every, self._sources = every or math.inf, sources
        self._at = -math.inf

    def names(self) -> list[str]:
        return self._sources.names() if self._sources is not None else []

    def due(self) -> Still | None:
        """A live source's newest frame, at first and as often as was asked for."""
        if self.live is None or time.perf_counter() - self._at < self._every:
            return None
        if (still := _newest(self.live)) is not None:
            self._at = time.perf_counter()
        return still

    def named(self, name: str) -> Read:
        """What reads the source of an order.

        Raises:
            ConfigError: nothing can be chosen in that way.
            InputError: no newer frame has come.
        """
        if name == "newest":
            if self.live is None:
                raise ConfigError("the source is not live", "give a file's name")
            if (still := _newest(self.live)) is None:
                raise InputError(f"{self.live.name}: no newer frame has come")
            return lambda: still
        if (sources := self._sources) is None:
            raise ConfigError("this stream does not read sources by name")
        return lambda: sources.read(name)


def _newest(feed: Feed) -> Still | None:
    if (arrival := feed.arrivals.take(0)) is None or arrival.image is None:
        return None
    return Still(Picture(arrival.image, feed.crop), feed.name)
