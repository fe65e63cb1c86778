"""A crew of processes on this machine, for `spread.py`."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import SimpleQueue
from threading import Thread
from typing import Any, Self

from .errors import SonomimeError
from .foreign_errors import as_ours
from .process import terminable
from .progress import silence
from .spread import Lost, Make, Opened

GRACE = 10.0  # seconds that a worker has to clean up in
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Process:
    """A process that works on one item after the other. It never sees Ctrl-C, and leaves when
    `stop` says so or when its parent is gone, after it has removed what it has half written. Linear
    algebra has one thread in it: with more of them the last bit of a result varies."""

    def __init__(self, make: Make) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, make), daemon=True)

        def start() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            before = {name: os.environ.get(name) for name in _THREADS}
            os.environ.update(dict.fromkeys(_THREADS, "1"))
            try:
                self._process.start()
            finally:
                for name, value in before.items():
                    os.environ.pop(name) if value is None else os.environ.update({name: value})

        # In a thread, whose mask the process inherits. And a signal interrupts the main thread: a
        # process that is half started would complain.
        with ThreadPoolExecutor(1) as starter:
            starter.submit(start).result()
        theirs.close()

    def give(self, item: Any) -> None:
        with suppress(OSError):  # it is gone, as `take` will say
            self.pipe.send(item)

    def take(self) -> Any:
        """What it says next; waits for it."""
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(GRACE)
            code = self._process.exitcode
            how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
            return Lost(f"its process ended ({how}), perhaps for lack of memory")

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(GRACE)
        self._process.kill()


class Processes:
    """A crew on this machine."""

    def __init__(self, make: Make) -> None:
        self._make, self._numbers = make, count()
        self._hired: dict[int, Process] = {}
        self.room = len(os.sched_getaffinity(0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._hired.values():
            process.stop()

    def hire(self) -> int:
        worker = next(self._numbers)
        self._hired[worker] = Process(self._make)
        return worker

    def give(self, worker: int, item: Any) -> None:
        self._hired[worker].give(item)

    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        ready = wait_for([process.pipe for process in self._hired.values()], seconds)
        speaking = [worker for worker, process in self._hired.items() if process.pipe in ready]
        heard = [(worker, self._hired[worker].take()) for worker in speaking]
        for worker, said in heard:
            if isinstance(said, (Lost, SonomimeError)):  # the last that it says
                self._hired.pop(worker).stop()
        return heard


def _work(pipe: Connection, make: Make) -> None:
    """What a process does."""
    silence()
    items: SimpleQueue[Any] = SimpleQueue()
    with suppress(KeyboardInterrupt), terminable():
        Thread(target=_listen, args=(pipe, items), daemon=True).start()
        try:
            work = make()
            said: Any = Opened()
            while True:
                pipe.send(said)
                said = work(items.get())
        except Exception as error:
            pipe.send(as_ours(error))


def _listen(pipe: Connection, items: SimpleQueue[Any]) -> None:
    with suppress(EOFError, OSError):
        while True:
            items.put(pipe.recv())
    os.kill(os.getpid(), signal.SIGTERM)  # the parent is gone: clean up and leave
