"""A progress bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from typing import TextIO, TypeVar

from .printable import printable

T = TypeVar("T")
_LOG_SECONDS = 10.0  # between two lines in a log
_QUIET_SECONDS = 2.0  # shorter work leaves no line in a log
_silent = False


def silence() -> None:
    """Show no progress in this process from now on: it works for another one, which does."""
    global _silent
    _silent = True


def print_beside(line: str, stream: TextIO) -> None:
    """Print a line while a bar may be shown, which moves down; control characters are escaped."""
    from tqdm import tqdm

    tqdm.write(printable(line), stream)
    stream.flush()


def progress(iterable: Iterable[T], total: int | None = None, label: str = "") -> Iterator[T]:
    """Yield the items of `iterable` and show the progress on standard error.

    On a terminal one line is redrawn; elsewhere a line appears every ten seconds, and one more at
    the end of work that took more than two. `total`: how many items to expect, which may be wrong;
    None for len(iterable), if it has one. `label`: what is being done.
    """
    if _silent:
        yield from iterable
        return
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]  # tqdm has no types
        monitor_interval = 0  # no thread: with miniters=1 the clock is read at each item

    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    if sys.stderr.isatty():
        columns = 80
        with suppress(OSError):  # some terminals say 0, which tqdm would believe
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or columns
        yield from Bar(iterable, label or None, total, miniters=1, ncols=columns)
        return
    count, start = 0, (shown := time.monotonic())

    def log() -> None:
        seconds = time.monotonic() - start
        line = tqdm.format_meter(count, total, seconds, ncols=79, prefix=label, ascii=True)
        print(line, file=sys.stderr, flush=True)

    try:
        for item in iterable:
            yield item
            count += 1
            if time.monotonic() - shown >= _LOG_SECONDS:
                shown = time.monotonic()
                log()
    finally:
        if time.monotonic() - start >= _QUIET_SECONDS:
            log()
