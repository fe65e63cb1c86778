"""A crew on a Ray cluster, for `spread.py`. Ray is an extra, imported when it is asked for."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import ExitStack, redirect_stdout, suppress
from itertools import count
from socket import create_connection
from typing import Any, Self

from ... import __version__
from .errors import BackendError, ConfigError, SonomimeError
from .process import import_or_explain, terminable
from .processes import GRACE, Process
from .spread import Lost, Make

NO_REPORTS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_USAGE_STATS_REPORT_URL": ""}
"""Ray reports its use over the network unless told not to; told by the first alone, a cluster still
sends one empty report."""
_NO_CLUSTER = "`ray start --head` starts one; --ray local needs none"


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
        self._ray = connect(address)
        self._make, self._numbers = make, count()
        self._hired: dict[int, Any] = {}
        self._elsewhere = ExitStack()
        self._opened: set[int] = set()
        self._asked: dict[Any, int] = {}  # who will answer what
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
            self._ray.wait(stopped, num_returns=len(stopped), timeout=GRACE)
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
        if isinstance(said, (Lost, SonomimeError)):  # the last that it says: others need its place
            self._opened.discard(worker)
            self._ray.kill(self._hired.pop(worker))
        else:
            self._opened.add(worker)
        return worker, said


def connect(address: str) -> Any:
    """Join a cluster; returns the package ray. Arguments and errors as of `OnRay`."""
    check_ray(address)
    os.environ |= NO_REPORTS
    ray = import_or_explain("ray", 'pip install "sonomime[ray]"')
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address, log_to_driver=False, logging_level=logging.ERROR,
            **{"include_dashboard": False} if address == "local" else {},
        )  # fmt: skip
    except Exception as error:  # Ray raises that itself where a node does not start in time
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(f"no Ray cluster at {address!r}: {reason}", _NO_CLUSTER) from error
    finally:
        with suppress(ValueError):  # not the main thread, whose handler Ray leaves alone
            signal.signal(signal.SIGTERM, handler)
    return ray


def check_ray(address: str) -> None:
    """See whether something answers there; Ray would try for minutes. Errors as of `OnRay`."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    hint = "HOST:PORT of the cluster's head, auto (this machine is part of it), or local"
    no_address = ConfigError(f"{address!r} is not the address of a Ray cluster", hint)
    if "/" in host or not (host and port.isdecimal() and int(port) < 2**16):
        raise no_address
    try:
        create_connection((host, int(port)), timeout=5).close()
    except UnicodeError:  # no name of a machine is so
        raise no_address from None
    except OSError as error:
        what = f"no Ray cluster answers at {address!r}: {error.strerror or error}"
        raise BackendError(what, _NO_CLUSTER) from error
