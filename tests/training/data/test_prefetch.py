"""Batches prepared ahead: the same ones, errors at their own step, a thread that ends."""

from __future__ import annotations

import threading

import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.pairs import PairSampler
from sonomime.training.data.prefetch import PrefetchSampler

from .made_clips import PLAIN, assert_same, flat, make_clip, smooth


def test_prefetching_changes_nothing() -> None:
    sampler = PairSampler([make_clip(smooth(5))], DataConfig(synthetic=0.3), 3, batch_size=2)
    with PrefetchSampler(sampler) as ahead:
        for step in (4, 5, 6, 7, 2, 3, 9, 9):
            assert_same(ahead.batch(step), sampler.batch(step))


class Broken:
    """Fails at one step, and remembers what it was asked for."""

    def __init__(self, sampler: PairSampler, at: int) -> None:
        self.sampler = sampler
        self.at = at
        self.asked: list[int] = []

    def batch(self, step: int) -> PairBatch:
        self.asked.append(step)
        if step == self.at:
            raise InputError(f"step {step}")
        return self.sampler.batch(step)


def test_an_error_arrives_at_its_own_step() -> None:
    broken = Broken(PairSampler([flat([1, 2])], PLAIN, 0, batch_size=1), at=2)
    with PrefetchSampler(broken) as ahead:
        ahead.batch(0)
        ahead.batch(1)
        with pytest.raises(InputError, match="step 2"):
            ahead.batch(2)
        ahead.batch(3)


def test_batches_are_prepared_ahead_and_the_thread_ends() -> None:
    broken = Broken(PairSampler([flat([1, 2])], PLAIN, 0, batch_size=1), at=-1)
    before = set(threading.enumerate())
    ahead = PrefetchSampler(broken, depth=2)
    ahead.batch(0)
    ahead.batch(1)
    ahead.close()
    ahead.close()
    assert broken.asked[:2] == [0, 1]
    assert len(broken.asked) == len(set(broken.asked)) <= 4
    assert set(threading.enumerate()) <= before
