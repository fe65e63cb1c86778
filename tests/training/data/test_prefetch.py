"""Batches prepared ahead: the same ones, errors at their own step, a thread that ends."""

from __future__ import annotations

import threading

import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.config import DataConfig
from sonomime.training.data.batch import PairBatch
from sonomime.training.data.pairs import PairSampler
from sonomime.training.data.prefetch import AHEAD, prefetched

from .made_clips import assert_same, make_clip, smooth

SAMPLER = PairSampler([make_clip(smooth(5))], DataConfig(synthetic=0.3), 3, batch_size=2)


def test_prefetching_changes_nothing() -> None:
    with prefetched(SAMPLER.batch) as batch:
        for step in (4, 5, 6, 7, 2, 3, 9, 9):
            assert_same(batch(step), SAMPLER.batch(step))


def test_batches_are_made_once_errors_come_at_their_step_and_the_thread_ends() -> None:
    asked: list[int] = []

    def broken(step: int) -> PairBatch:
        asked.append(step)
        if step == 2:
            raise InputError(f"step {step}")
        return SAMPLER.batch(step)

    before = set(threading.enumerate())
    with prefetched(broken) as batch:
        batch(0)
        batch(1)
        with pytest.raises(InputError, match="step 2"):
            batch(2)
        batch(3)
    assert asked[:4] == [0, 1, 2, 3]
    assert len(asked) == len(set(asked)) <= 4 + AHEAD
    assert set(threading.enumerate()) <= before
