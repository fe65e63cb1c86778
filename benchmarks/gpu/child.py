"""A process that says in JSON what it does, a table a line, and may die or be stopped at it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

Message = dict[str, Any]
"""One of `{"begin": name}` of a row, `{"row": row}`, `{"spoilt": True}` (this process is in doubt,
another may go on), or facts."""

_TICK = 0.1  # seconds


def listen(
    command: Sequence[str], limit: Callable[[], float], heard: Callable[[Message], None]
) -> dict[str, str]:
    """Run a command, hand on what it says, and stop it with all that it started when it is silent
    for longer than `limit` seconds, asked again with every message.

    Returns how it ended: `{"stopped": why}`, `{"failed": why}`, or nothing when well.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
    try:
        for line in _lines(process, limit):
            try:
                message = json.loads(line)
            except ValueError:  # printed before it could be kept from that
                continue
            heard(message)
        code = process.wait()
    except TimeoutError as late:
        return {"stopped": str(late)}
    finally:
        if process.poll() is None:  # it is late, or we were interrupted
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code < 0:
        return {"failed": f"ended by {signal.Signals(-code).name}"}
    return {"failed": f"ended with exit code {code}"} if code else {}


def _lines(process: subprocess.Popen[bytes], limit: Callable[[], float]) -> Iterator[bytes]:
    """Whole lines, until the process has ended: what it started may keep its pipe open."""
    assert process.stdout is not None
    with process.stdout as pipe:
        rest, seconds, since = b"", limit(), perf_counter()
        ended = False
        while not ended:
            if perf_counter() > since + seconds:
                raise TimeoutError(f"after {seconds:.0f} s: out of time")
            ended = process.poll() is not None
            if not select.select([pipe], [], [], 0 if ended else _TICK)[0]:
                continue
            if not (data := os.read(pipe.fileno(), 1 << 16)):
                sleep(_TICK)
                continue
            ended = False
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line
                seconds, since = limit(), perf_counter()


def speak(messages: Iterable[Message]) -> None:
    """Say messages to who listens. Whatever else is printed, by libraries too, goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for message in messages:
            print(json.dumps(message, allow_nan=False), file=out, flush=True)
