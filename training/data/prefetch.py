"""Batches prepared ahead, in a thread of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from .batch import PairBatch

AHEAD = 2  # batches

Sampler = Callable[[int], PairBatch]


@contextmanager
def prefetched(sampler: Sampler) -> Iterator[Sampler]:
    """Yields a function that gives exactly what the sampler gives for a step, its exceptions
    included, while a thread prepares the batches of the next steps.

    (OpenCV releases the interpreter lock.) Steps asked for out of order are computed all the same.
    """
    pending: dict[int, Future[PairBatch]] = {}

    def batch(step: int) -> PairBatch:
        steps = range(step, step + AHEAD + 1)
        for other in [known for known in pending if known not in steps]:
            pending.pop(other).cancel()
        for ahead in steps:
            if ahead not in pending:
                pending[ahead] = pool.submit(sampler, ahead)
        return pending.pop(step).result()

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pairs")
    try:
        yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
