"""A one-line progress bar: how far, how fast, how long still."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TextIO, TypeVar

T = TypeVar("T")

_BAR_WIDTH = 24
_REDRAW_SECONDS = 0.1
_LOG_SECONDS = 10.0  # between lines where there is no terminal to redraw
_QUIET_SECONDS = 2.0  # what is over sooner needs no line in a log


def progress(
    iterable: Iterable[T],
    total: int | None = None,
    label: str = "",
    stream: TextIO | None = None,
) -> Iterator[T]:
    """Yield the items of `iterable` and show how far it is.

    On a terminal one line is redrawn; elsewhere a line appears every ten seconds, and one more at
    the end if it took more than two.

    Args:
        iterable: what to go through.
        total: how many items to expect, which may be wrong; when None, what len() says, if it can.
        label: what is being done.
        stream: where to write, standard error when None.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    line = _Line(total, label, sys.stderr if stream is None else stream)
    try:
        for item in iterable:
            yield item
            line.advance()
    finally:
        line.finish()


class _Line:
    def __init__(self, total: int | None, label: str, stream: TextIO) -> None:
        self._total = total
        self._label = label
        self._stream = stream
        self._terminal = stream.isatty()
        self._count = 0
        self._start = self._shown = time.monotonic()
        self._width = 0

    def advance(self) -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._shown >= (_REDRAW_SECONDS if self._terminal else _LOG_SECONDS):
            self._shown = now
            self._write(now)

    def finish(self) -> None:
        now = time.monotonic()
        if self._terminal:
            self._write(now)
            self._stream.write("\n")
            self._stream.flush()
        elif now - self._start >= _QUIET_SECONDS:
            self._write(now)

    def _write(self, now: float) -> None:
        text = progress_text(self._label, self._count, self._total, now - self._start)
        if self._terminal:
            # Blanks cover what a longer line left behind.
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def progress_text(label: str, count: int, total: int | None, seconds: float) -> str:
    """The line for `count` of `total` items after `seconds`."""
    rate = count / seconds if seconds > 0 else 0.0
    speed = f"{rate:.1f}/s" if rate >= 1 or rate == 0 else f"{1 / rate:.1f} s each"
    head = f"{label}: " if label else ""
    if not total or count > total:  # unknown, or a hint that turned out too small
        return f"{head}{count}  {speed}  {_clock(seconds)}"
    filled = _BAR_WIDTH * count // total
    bar = "#" * filled + "." * (_BAR_WIDTH - filled)
    left = (total - count) / rate if rate else 0.0
    time_text = f"{_clock(left)} left" if count < total else _clock(seconds)
    return f"{head}[{bar}] {count}/{total}  {speed}  {time_text}"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
