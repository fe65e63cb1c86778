"""Work spread over workers: processes of this machine (`processes.py`), or actors of a Ray cluster
(`on_ray.py`).

A worker opens what it needs once and then works on one item after the other. Where one is lost
(killed, crashed, its machine gone), another one tries its item again, up to TRIES times.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

from .errors import BackendError, SonomimeError

log = logging.getLogger("sonomime")

TRIES = 3
"""How often an item is tried whose worker is lost; and how many may be lost while they open."""
Make = Callable[[], Callable[[Any], Any]]
"""Opens what a worker needs, and returns what works on an item. Both are pickled."""
_NO_START = "is there enough memory, and the same sonomime with its extras on every machine?"
_PATIENCE = 30.0  # seconds without any worker until that is said


class Lost(NamedTuple):
    """Comes in the place of a result: the worker is gone."""

    reason: str

    def error(self, what: str) -> SonomimeError:
        """The error to report for an item that was given up; `what` names it."""
        hint = "look at its files, or use fewer --jobs: finished files stay"
        said = f"{what}: {TRIES} workers were lost while they worked on it: {self.reason}"
        return SonomimeError(said, hint)


class Opened(NamedTuple):
    """The first that a worker says: it can be given items."""


class Crew(Protocol):
    """Workers, by number. `wait` gives the numbers of those that have answered, and their answers:
    at first `Opened`, then the result of each item given. After `Lost`, or an error of ours, a
    worker gives no more answers. `room` is how many can work at once."""

    room: int

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
