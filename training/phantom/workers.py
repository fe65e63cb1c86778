"""Work spread over processes that end at once, and in silence, when their parent does.

A worker never sees Ctrl-C. It watches a pipe whose other end only the parent holds. When the parent
closes that end, or dies in whatever way, the worker leaves.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
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
    """Run tasks in processes of one thread each; the first error ends all.

    Args:
        frames: how many calls of :func:`tick` the tasks make, for the progress bar.

    Raises:
        SonomimeError: a process was killed. What a task raises passes unchanged.
    """
    context = get_context("spawn")
    counter: Synchronized[int] = context.Value("q", 0)
    watched, held = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, _start, (watched, counter))
    try:
        with _for_workers():
            pending = {pool.submit(task, *arguments) for task, arguments in tasks}
            # Wakes the pool once more: it watches only processes it knew when it was last woken.
            pool.submit(int)
        for _ in progress(_frames(pending, counter), total=frames, label=label):
            pass
    except BrokenProcessPool as error:
        held.close()
        raise SonomimeError(
            "a worker process died: it was killed, perhaps for lack of memory",
            "give the command again with fewer --workers: finished files stay",
        ) from error
    except BaseException:
        held.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        held.close()
        watched.close()


def tick() -> None:
    """A frame is done."""
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += 1


def _frames(pending: set[Future[None]], counter: Synchronized[int]) -> Iterator[None]:
    shown = 0
    while pending:
        done, pending = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        # Without its lock, which a killed worker may still hold.
        count = counter.get_obj().value
        for _ in range(shown, count):
            yield
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


@contextmanager
def _for_workers() -> Iterator[None]:
    """Processes started inside see no Ctrl-C, and use one thread for linear algebra: with more of
    them the last bit of a result varies.

    A half-started worker would complain about a signal, so signals that come inside are raised at
    the end. A mask alone is not enough: any other thread of this process would still take them.
    """
    came: list[int] = []
    handlers: dict[int, Any] = {}
    with suppress(ValueError):  # not the main thread, which alone gets signals
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if callable(signal.getsignal(number)):
                handlers[number] = signal.signal(number, lambda n, frame: came.append(n))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
