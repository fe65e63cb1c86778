"""Work for tests of `runtime/support/spread.py`, in a module that other processes can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sonomime.runtime.support.errors import BackendError, BundleError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def opened() -> Callable[[object], object]:
    return work


def work(item: object) -> object:
    """Numbers are squared; a path is where a worker leaves its number, and then is killed, unless
    one was killed there before; THREADS are looked up; None kills every worker; texts are wrong."""
    if item == THREADS:
        return [os.environ.get(name) for name in THREADS]
    if isinstance(item, int):
        time.sleep(0.05)  # so that all have something to do
        return item * item, os.getpid()
    if isinstance(item, Path):
        if item.exists():
            return "again", os.getpid()
        item.write_text(str(os.getpid()))
    if item is None or isinstance(item, Path):
        os.kill(os.getpid(), signal.SIGKILL)
    raise TypeError(item)


def refused() -> Callable[[object], object]:
    raise BundleError("no model", "make one")


def opened_once(there: Path) -> Callable[[object], object]:
    """As if there were memory for one worker alone."""
    try:
        there.touch(exist_ok=False)
    except FileExistsError:
        raise BackendError("no memory", "take less") from None
    return work


def crashed() -> Callable[[object], object]:
    os.kill(os.getpid(), signal.SIGKILL)
    return work
