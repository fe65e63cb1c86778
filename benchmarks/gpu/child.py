"""A process that may crash or hang, and the JSON lines by which it reports.

A line with a `name` is a row: first `{"name": ..., "begun": true}`, then what was found. Any other
line has facts of the whole part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from time import perf_counter, sleep
from typing import Any

Spec = dict[str, Any]
Row = dict[str, Any]
Say = Callable[[Row], None]

_TICK = 0.1  # seconds


def listen(command: Sequence[str], limit: Callable[[], float], heard: Say) -> dict[str, str]:
    """Run a command and pass its lines on. Stop it, and everything it started, when it is silent
    for longer than `limit()` seconds, which is asked again after every line.

    Returns:
        How it ended: `{"stopped": why}`, `{"failed": why}`, or nothing when it ended well.
    """
    # A file, not a pipe: a process that outlives the command may keep a pipe open.
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, start_new_session=True)
        try:
            known, seconds, since, code = 0, limit(), perf_counter(), None
            while code is None:
                code = process.poll()  # before reading: what it wrote last is read too
                said = os.pread(out.fileno(), os.fstat(out.fileno()).st_size, 0)
                whole = said.split(b"\n")[known:-1]
                for line in whole:
                    with suppress(ValueError):  # printed before `speaker` could prevent it
                        if isinstance(message := json.loads(line), dict):
                            heard(message)
                if whole:
                    known, seconds, since = known + len(whole), limit(), perf_counter()
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


def speaker() -> Say:
    """How this process reports on its standard output. Everything else that it prints, also from
    libraries, goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lambda message: print(json.dumps(message, allow_nan=False), file=out, flush=True)


def each(
    say: Say, names: Sequence[str], done: Collection[str], work: Callable[[str], Row],
    alone: bool = False,
) -> bool:  # fmt: skip
    """Report a row for every name that is not done; returns whether all are. A CUDA error stays
    with its process, so this ends after a row that failed, and another process does the rest.

    Args:
        work: makes the row of a name; what it raises is the row's failure.
        alone: end after every row.
    """
    todo = [name for name in names if name not in done]
    for name in todo:
        say({"name": name, "begun": True})
        try:
            row = work(name)
        except Exception as error:  # from torch, CUDA, a compiler, a broken installation
            row = {"failed": said(error)}
        say({"name": name} | row)
        if (alone or "failed" in row) and name != todo[-1]:
            return False
    return True


def said(error: BaseException) -> str:
    """An error in one line, with the error that caused it: leaving a failed capture raises another
    one."""
    first = error
    while before := first.__cause__ or (None if first.__suppress_context__ else first.__context__):
        first = before
    lines = [f"{type(e).__name__}: {e}".strip().splitlines()[0][:300] for e in (error, first)]
    return lines[0] if first is error else f"{lines[0]}; caused by {lines[1]}"
