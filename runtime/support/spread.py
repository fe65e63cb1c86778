"""Work spread over processes of this machine, or over the machines of a Ray cluster.

A worker opens what it needs once and then works on one item after the other. Where one is lost
(killed, crashed, its machine gone), another one tries its item again, up to TRIES times. Ray is
imported when it is asked for: it is an extra.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout, suppress
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from queue import SimpleQueue
from socket import create_connection
from threading import Thread
from typing import Any, NamedTuple, Protocol, Self

from ... import __version__
from .errors import BackendError, ConfigError, SonomimeError
from .foreign_errors import as_ours
from .process import import_or_explain, terminable
from .progress import silence

log = logging.getLogger("sonomime")

TRIES = 3
"""How often an item is tried whose worker is lost; and how many may be lost while they open."""
Make = Callable[[], Callable[[Any], Any]]
"""Opens what a worker needs, and returns what works on an item. Both are pickled."""
NO_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": ""}
"""Ray reports its use over the network unless told not to; told by the first alone, a cluster still
sends one empty report."""
_NO_START = "is there enough memory, and the same sonomime with its extras on every machine?"
_NO_CLUSTER = "`ray start --head` starts one; --ray local needs none"
_PATIENCE = 30.0  # seconds without any worker until that is said
_GRACE = 10.0  # seconds that a worker has to clean up in


class Lost(NamedTuple):
    """Comes in the place of a result: the worker is gone."""

    reason: str


class _Opened(NamedTuple):
    """The first that a worker says: it can be given items."""


class Crew(Protocol):
    """Workers, by number. `wait` gives who has answered, and what: first `_Opened`, then one
    result for each item given; `Lost` as the last; an error of ours ends all."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def hire(self) -> int: ...
    def give(self, worker: int, item: Any) -> None: ...
    def wait(self, seconds: float) -> list[tuple[int, Any]]: ...


def spread(crew: Crew, workers: int, items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
    """Work on all items with a crew, which the caller has entered and leaves.

    Yields:
        The item's index and the result, as they come; or `Lost`, if TRIES workers were lost with
        the item.

    Raises:
        SonomimeError: what a worker raised, outside of what it caught itself.
        BackendError: workers are lost before they can be given anything.
    """
    waiting, idle = deque(range(len(items))), deque[int]()
    working: dict[int, int] = {}
    tries: Counter[int] = Counter()
    opening = {crew.hire() for _ in range(min(workers, len(items)))}
    lost_at_opening = 0
    while waiting or working:
        heard = crew.wait(_PATIENCE)
        if not (heard or working or idle):
            log.warning("still waiting for a first worker: is a processor free for it?")
        for worker, said in heard:
            index = working.pop(worker, None)
            if isinstance(said, SonomimeError):
                opening.discard(worker)
                others = working or idle or opening
                if not (isinstance(said, BackendError) and index is None and others):
                    raise said
                lost_at_opening += 1  # there may be no memory for so many
                log.warning("one worker less: %s", said)
                continue
            if not isinstance(said, Lost):
                opening.discard(worker)
                idle.append(worker)
                if index is not None:
                    yield index, said
                continue
            if index is not None:
                tries[index] += 1
                if tries[index] == TRIES:
                    yield index, said
                else:
                    log.warning("a worker is lost, its work is tried again: %s", said.reason)
                    waiting.appendleft(index)
            elif worker in opening:
                opening.remove(worker)
                lost_at_opening += 1
            else:
                idle.remove(worker)
            if waiting and lost_at_opening < TRIES:
                opening.add(crew.hire())
            elif waiting and not (working or idle or opening):
                raise BackendError(f"no worker can start: {said.reason}", _NO_START)
        while waiting and idle:
            worker = idle.popleft()
            working[worker] = waiting.popleft()
            crew.give(worker, items[working[worker]])


# -- on this machine -------------------------------------------------------------------------------


class Process:
    """A process that works on one item after the other. It never sees Ctrl-C, and leaves when
    `stop` says so or when its parent is gone, after it has removed what it has half written."""

    def __init__(self, make: Make) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, make), daemon=True)

        def start() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._process.start()

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
            self._process.join(_GRACE)
            code = self._process.exitcode
            how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
            return Lost(f"its process ended ({how}), perhaps for lack of memory")

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(_GRACE)
        self._process.kill()


class Processes:
    """A crew on this machine."""

    def __init__(self, make: Make) -> None:
        self._make, self._numbers = make, count()
        self._hired: dict[int, Process] = {}

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
            if isinstance(said, Lost):
                del self._hired[worker]
        return heard


def _work(pipe: Connection, make: Make) -> None:
    """What a process does."""
    silence()
    items: SimpleQueue[Any] = SimpleQueue()
    with suppress(KeyboardInterrupt), terminable():
        Thread(target=_listen, args=(pipe, items), daemon=True).start()
        try:
            work = make()
            said: Any = _Opened()
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


# -- on a Ray cluster ------------------------------------------------------------------------------


class _Seat:
    """Ray's actor. It holds a process, which can clean up where Ray would kill its own."""

    def __init__(self, make: Make) -> None:
        self._process = Process(make)

    def opened(self, version: str) -> Any:
        if version != __version__:
            what = f"a machine of the cluster has sonomime {__version__}, this one {version}"
            return BackendError(what, "install the same version everywhere")
        return self._process.take()

    def work(self, item: Any) -> Any:
        self._process.give(item)
        return self._process.take()

    def stop(self) -> None:
        self._process.stop()


class OnRay:
    """A crew on a Ray cluster, one actor a worker. While it is entered, sys.stdout is sys.stderr.

    Args:
        address: HOST:PORT of the cluster's head, `auto` for the one that this machine is part of,
            or `local` for one that is made on this machine and ends with the work.
        cpus, gpus: what a worker takes of a machine.

    Raises:
        BackendError: Ray is not installed, or the cluster cannot be reached.
        ConfigError: an address of another form.
    """

    def __init__(self, make: Make, address: str, cpus: int, gpus: int) -> None:
        _check_address(address)
        os.environ |= NO_REPORTS
        self._ray = import_or_explain("ray", 'pip install "sonomime[ray]"')
        self._make, self._numbers = make, count()
        self._hired: dict[int, Any] = {}
        self._elsewhere = ExitStack()
        self._opened: set[int] = set()
        self._asked: dict[Any, int] = {}  # who will answer what
        handler = signal.getsignal(signal.SIGTERM)
        try:
            self._ray.init(
                address, log_to_driver=False, logging_level=logging.ERROR,
                **{"include_dashboard": False} if address == "local" else {},
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise BackendError(f"no Ray cluster at {address!r}: {reason}", _NO_CLUSTER) from error
        finally:
            with suppress(ValueError):  # not the main thread, whose handler Ray leaves alone
                signal.signal(signal.SIGTERM, handler)
        # Two at a time: `stop` is heard while it works. Ray need not try again: `spread` does.
        self._seat = self._ray.remote(num_cpus=cpus, num_gpus=gpus, max_concurrency=2)(_Seat)
        there = self._ray.cluster_resources()
        self.room = int(there.get("CPU", 0) // cpus)
        if gpus:
            self.room = min(self.room, int(there.get("GPU", 0) // gpus))

    def __enter__(self) -> Self:
        # Ray prints what happens to machines on standard output, which programs read.
        self._elsewhere.enter_context(redirect_stdout(sys.stderr))
        return self

    def __exit__(self, *_: object) -> None:
        # Those that wait for a place would not answer.
        stopped = [self._hired[worker].stop.remote() for worker in self._opened]
        if stopped:
            self._ray.wait(stopped, num_returns=len(stopped), timeout=_GRACE)
        self._ray.shutdown()
        self._elsewhere.close()

    def hire(self) -> int:
        worker = next(self._numbers)
        self._hired[worker] = self._seat.remote(self._make)
        self._asked[self._hired[worker].opened.remote(__version__)] = worker
        return worker

    def give(self, worker: int, item: Any) -> None:
        self._asked[self._hired[worker].work.remote(item)] = worker

    def wait(self, seconds: float) -> list[tuple[int, Any]]:
        with terminable():  # Ray would make Ctrl-C of any signal
            answered, _ = self._ray.wait(list(self._asked), timeout=seconds)
            return [self._answer(reference) for reference in answered]

    def _answer(self, reference: Any) -> tuple[int, Any]:
        worker = self._asked.pop(reference)
        try:
            said = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the actor, its machine or its package
            said = Lost(" ".join(str(error).split())[:500])
        if isinstance(said, Lost):
            self._opened.discard(worker)
            self._ray.kill(self._hired.pop(worker))
        else:
            self._opened.add(worker)
        return worker, said


def _check_address(address: str) -> None:
    """Ask here: Ray would try for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "/" in host or not (host and port.isdecimal() and int(port) < 2**16):
        hint = "HOST:PORT of the cluster's head, auto (this machine is part of it), or local"
        raise ConfigError(f"{address!r} is not the address of a Ray cluster", hint)
    try:
        create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        what = f"no Ray cluster answers at {address!r}: {error.strerror or error}"
        raise BackendError(what, _NO_CLUSTER) from error
