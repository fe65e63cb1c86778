"""Work spread over processes that end at once, and in silence, when their parent does.

A worker never sees Ctrl-C. It watches a pipe whose other end only the parent holds: when the parent
lets go of it, or dies however it may, the worker leaves.
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
            # The pool watches the processes that it knew when it was last woken: not the newest.
            pool.submit(int)
        for _ in progress(_frames(pending, counter), total=frames, label=label):
            pass
    except BrokenProcessPool as error:
        held.close()
        raise SonomimeError(
            "a worker process died: it was killed, by somebody or for want of memory",
            "give the command again with fewer --workers: what is finished stays",
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
        # Without its lock, which a killed worker may have taken with it.
        count = counter.get_obj().value
        for _ in range(shown, count):
            yield
        shown = count


def _start(watched: Connection, counter: Synchronized[int]) -> None:
    global _counter
    _counter = counter
    cv2.setNumThreads(1)  # it heeds none of _THREADS
    Thread(target=_leave_with_parent, args=(watched,), daemon=True).start()


def _leave_with_parent(watched: Connection) -> None:
    with suppress(EOFError, OSError):
        watched.recv_bytes()
    os._exit(1)


@contextmanager
def _for_workers() -> Iterator[None]:
    """What is started inside inherits: no Ctrl-C, and one thread for linear algebra, because with
    more of them its last bit varies. Signals wait meanwhile: a half-started worker would complain.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    with _signals_later():
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Signals that come inside are raised at the end. A mask alone does not do: any other thread of
    the process, such as one of a library, would still take them."""
    came: list[int] = []
    handlers: dict[int, Any] = {}
    try:
        with suppress(ValueError):  # not the main thread: no signal comes here
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if callable(signal.getsignal(number)):
                    handlers[number] = signal.signal(number, lambda n, frame: came.append(n))
        yield
    finally:
        for caught, handler in handlers.items():
            signal.signal(caught, handler)
        if came:
            signal.raise_signal(came[0])
