"""A stream with its outlets, run until it ends or is interrupted, and what is said meanwhile."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from ..support.errors import SonomimeError
from ..support.printable import printable
from .errands import ENDED
from .outlets import Outlet, Outlets
from .stream import Stream

EVERY = 1.0  # seconds between two lines about how it goes


def run_stream(
    stream: Stream, outlets: Sequence[Outlet], seconds: float | None, as_json: bool,
    output: TextIO,
) -> None:  # fmt: skip
    """Run a stream until it ends, for so many seconds, or until a signal raises in this thread;
    then every file is finished. Lines from the standard input are orders.

    Args:
        as_json: print a line of JSON each second, to `output`; else people get one on the
            standard error.

    Raises:
        SonomimeError: what ended the stream, or made an outlet fail.
    """
    group = Outlets(outlets)
    stream.drops = stream.drops | {outlet.name: outlet.dropped for outlet in outlets}
    end = None if seconds is None else time.monotonic() + seconds
    stream.start(group.show, group.end)
    _obey_standard_input(stream)
    said, pair_number = _Line(as_json, output), 0
    try:
        while not stream.wait(min(EVERY, max(0.0, (end or 1e18) - time.monotonic()))):
            if stream.pair is not None and stream.pair_number != pair_number and not as_json:
                pair_number = stream.pair_number
                said.tell(f"{stream.pair.still.name}: {stream.pair.alignment.said or 'ready'}")
            said.say(stream.metrics.snapshot())
            if end is not None and time.monotonic() >= end:
                break
    finally:
        try:
            stream.finish()
        finally:
            group.close()  # files first: a camera or a network may keep the rest waiting
            said.end(stream.metrics.snapshot())
            stream.close()
    if stream.error is not None:
        raise stream.error
    if group.errors:
        raise group.errors[0]


class _Line:
    """What is said each second: a line that is written over on a terminal, else one whenever the
    state changes."""

    def __init__(self, as_json: bool, output: TextIO) -> None:
        self._json, self._output, self._state = as_json, output, ""
        self._terminal = sys.stderr.isatty()

    def say(self, now: dict[str, Any]) -> None:
        if self._json:
            print(json.dumps(now), file=self._output, flush=True)
        elif self._terminal:
            print(f"\r{_words(now)[:78]:<78}", end="", file=sys.stderr, flush=True)
        elif now["state"] != self._state:
            self._state = now["state"]
            _write(_words(now))

    def tell(self, text: str) -> None:
        """A line of its own."""
        text = printable(text)
        _write(f"\r{text:<78}" if self._terminal else text)

    def end(self, now: dict[str, Any]) -> None:
        if self._json:
            print(json.dumps(now), file=self._output, flush=True)
            return
        _write("\n" * self._terminal + _words(now))


def _words(now: dict[str, Any]) -> str:
    """A line for people."""
    parts = [f"{now['state']}: {now['why']}" if now["why"] else now["state"]]
    if now["why"] == ENDED:
        parts = ["ended"]
    parts.append(f"{now['frames']} frames, {now['fps']:.1f} a second")
    if (latency := now["latency_ms"]) is not None:
        parts.append(f"latency {latency['p50']:.0f} ms (p99 {latency['p99']:.0f})")
    if dropped := [f"{name} {count}" for name, count in now["dropped"].items() if count]:
        parts.append(f"dropped: {', '.join(dropped)}")
    if now["renderers_lost"]:
        parts.append(f"replaced what makes the frames {now['renderers_lost']} times")
    return printable("; ".join(parts))


def _obey_standard_input(stream: Stream) -> None:
    """Take lines of the standard input as orders, in a thread: from a pipe, or from a terminal
    where this is in front. (A process in the background would be stopped for reading from it.)"""
    if sys.stdin is None or sys.stdin.closed:
        return
    try:
        number = sys.stdin.fileno()
        if os.isatty(number) and os.tcgetpgrp(number) != os.getpgrp():
            return
    except (OSError, ValueError):
        return

    def obey() -> None:
        rest = b""
        # Not through sys.stdin, whose lock would be held at the end of the program.
        while data := os.read(number, 1 << 12):
            *lines, rest = (rest + data).split(b"\n")
            for line in filter(None, (each.decode("utf-8", "replace").strip() for each in lines)):
                try:
                    stream.order(line, _answer)
                except SonomimeError as error:
                    _answer(f"{error} ({error.hint})" if error.hint else str(error))

    threading.Thread(target=obey, name="orders", daemon=True).start()


def _answer(text: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it
        _write(printable(text))


def _write(line: str) -> None:
    """In one piece: `print` would write the end of the line by itself, and lines of several threads
    could run into each other."""
    sys.stderr.write(line + "\n")
