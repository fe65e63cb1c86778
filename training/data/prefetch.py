"""Batches prepared ahead, in a thread of their own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol

from .batch import PairBatch


class Sampler(Protocol):
    """Anything that makes the batch of a step."""

    def batch(self, step: int) -> PairBatch: ...


class PrefetchSampler:
    """Prepares the next batches of a sampler in one background thread (OpenCV lets go of the
    interpreter lock).

    ``batch(step)`` gives exactly what the sampler gives, its exceptions included; steps asked for
    out of order are computed all the same. A context manager; :meth:`close` waits for the batch in
    the making.
    """

    def __init__(self, sampler: Sampler, depth: int = 2) -> None:
        self._sampler = sampler
        self._depth = max(1, depth)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
        self._pending: dict[int, Future[PairBatch]] = {}

    def batch(self, step: int) -> PairBatch:
        """The batch of a step; starts on those that follow."""
        for old in [known for known in self._pending if not step <= known <= step + self._depth]:
            self._pending.pop(old).cancel()
        for ahead in range(step, step + self._depth + 1):
            if ahead not in self._pending:
                self._pending[ahead] = self._pool.submit(self._sampler.batch, ahead)
        return self._pending.pop(step).result()

    def close(self) -> None:
        """Drop what was prepared and end the thread; may be called twice."""
        self._pending.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> PrefetchSampler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
