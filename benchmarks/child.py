"""A process that says in JSON what it does, a table a line, and may die or be stopped at it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

Message = dict[str, Any]
"""One of `{"begin": name}` of a row, `{"row": row}`, `{"spoilt": True}` (this process is in doubt,
another may go on), or facts."""


def listen(command: Sequence[str], seconds: float, heard: Callable[[Message], None]) -> str:
    """Run a command, hand on what it says, and stop it with all that it started when the time is
    over. Returns how it ended, empty when well."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    late = threading.Event()

    def stop() -> None:
        late.set()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with suppress(ValueError):  # half a line, where it was killed
                    heard(json.loads(line))
        code = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:  # we were interrupted
            stop()
            process.wait()
    if late.is_set():
        return f"stopped after {seconds:.0f} s: out of time"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}" if code else ""


def speak(messages: Iterable[Message]) -> None:
    """Say messages to who listens. Whatever else is printed, by libraries too, goes to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        for message in messages:
            print(json.dumps(message), file=out, flush=True)
