"""Run a subprocess that reports JSON lines and may crash or time out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

Message = dict[str, Any]
"""`{"begin": name}` before a row, `{"row": row}` after it, `{"complete": True}`, or facts."""

Say = Callable[[Message], None]

_TICK = 0.1  # seconds


def listen(command: Sequence[str], limit: Callable[[], float], heard: Say) -> dict[str, str]:
    """Run a command and pass its messages on. Stop it, and everything it started, when it is silent
    for longer than `limit()` seconds, which is asked again after every message.

    Returns:
        How it ended: `{"stopped": why}`, `{"failed": why}`, or nothing when it ended well.
    """
    # A file, not a pipe: a process that outlives the command may keep a pipe open.
    with tempfile.TemporaryFile() as out, open(f"/proc/self/fd/{out.fileno()}", "rb") as lines:
        process = subprocess.Popen(command, stdout=out, start_new_session=True)
        try:
            rest, seconds, since = b"", limit(), perf_counter()
            code = None
            while code is None:
                code = process.poll()  # before reading: what it wrote last is read too
                *whole, rest = (rest + lines.read()).split(b"\n")
                for line in whole:
                    if message := _parsed(line):
                        heard(message)
                    seconds, since = limit(), perf_counter()
                if code is None and perf_counter() > since + seconds:
                    return {"stopped": f"after {seconds:.0f} s: out of time"}
                sleep(0 if code is not None else _TICK)
        finally:
            if process.poll() is None:  # it is late, or we were interrupted
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code < 0:
        return {"failed": f"ended by {signal.Signals(-code).name}"}
    return {"failed": f"ended with exit code {code}"} if code else {}


def _parsed(line: bytes) -> Message:
    """Empty for what was printed before `speaker` could prevent it."""
    with suppress(ValueError):
        found = json.loads(line)
        return found if isinstance(found, dict) else {}
    return {}


def speaker() -> Say:
    """How this process sends messages on its standard output. Everything else that it prints, also
    from libraries, goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message, allow_nan=False), file=out, flush=True)
