"""Work spread over processes that end at once, and in silence, when their parent does.

A worker never sees Ctrl-C. It watches a pipe whose other end only the parent holds. When the parent
closes that end, or dies in whatever way, the worker leaves.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from threading import Thread
from typing import Any

import cv2

from ...runtime.support.errors import SonomimeError
from ...runtime.support.progress import progress

Task = tuple[Callable[..., None], tuple[Any, ...]]
"""A function of a module, and its arguments."""

_POLL = 0.2  # seconds between looks at how many frames are done
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_counter: Synchronized[int] | None = None  # in a worker: the frames that all of them have made


def run(tasks: Sequence[Task], workers: int, frames: int, label: str) -> None:
    """Run tasks in processes of one thread each; the first error ends all, and passes unchanged.
    SonomimeError if a process is killed. ``frames``: how often the tasks :func:`tick`."""
    context = get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start, (watched, counter))
    try:
        # In a thread: a signal interrupts the main one, and half-started processes would complain.
        with ThreadPoolExecutor(1) as starter:
            pending = starter.submit(_submit, pool, tasks).result()
        for _ in progress(_frames(pending, counter), total=frames, label=label):
            pass
    except BrokenProcessPool as error:
        raise SonomimeError(
            "a worker process died: it was killed, perhaps for lack of memory",
            "give the command again with fewer --workers: finished files stay",
        ) from error
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        watched.close()


def tick() -> None:
    """In a worker: say that a frame is done."""
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def _submit(pool: ProcessPoolExecutor, tasks: Sequence[Task]) -> set[Future[None]]:
    """Start the processes. They inherit this thread's mask of signals, and use one thread for
    linear algebra: with more of them the last bit of a result varies."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = {name: os.environ[name] for name in _THREADS if name in os.environ}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        pending = {pool.submit(task, *arguments) for task, arguments in tasks}
        # Wakes the pool once more: it watches only processes it knew when it was last woken.
        pool.submit(int)
    finally:
        for name in _THREADS:
            del os.environ[name]
        os.environ.update(before)
    return pending


def _frames(pending: set[Future[None]], counter: Synchronized[int]) -> Iterator[int]:
    shown = 0
    while pending:
        done, pending = wait(pending, _POLL, "FIRST_COMPLETED")
        for future in done:
            future.result()
        # Without its lock, which a killed worker may still hold.
        count = counter.get_obj().value
        yield from range(shown, count)
        shown = count


def _start(watched: Connection, counter: Synchronized[int]) -> None:
    global _counter
    _counter = counter
    cv2.setNumThreads(1)  # OpenCV ignores _THREADS
    Thread(target=_leave_with_parent, args=(watched,), daemon=True).start()


def _leave_with_parent(watched: Connection) -> None:
    with suppress(EOFError, OSError):
        watched.recv_bytes()
    os._exit(1)
