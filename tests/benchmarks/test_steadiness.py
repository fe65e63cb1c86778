"""Whether a machine was steady, and what is found out about memory."""

from __future__ import annotations

from mmap import mmap

import numpy as np
import pytest

from sonomime.benchmarks.memory import memory
from sonomime.benchmarks.steadiness import (
    BLOCKS,
    LEAST_BLOCKS,
    LEAST_IN_A_BLOCK,
    MOST_SPREAD,
    in_blocks,
    steadiness,
    warnings_of,
)


def test_samples_are_cut_into_equal_runs() -> None:
    assert in_blocks(list(range(BLOCKS * 7 + 3))) == [
        list(range(7 * i, 7 * i + 7)) for i in range(BLOCKS)
    ]
    least = LEAST_BLOCKS * LEAST_IN_A_BLOCK
    assert [len(block) for block in in_blocks([1.0] * least)] == [LEAST_IN_A_BLOCK] * LEAST_BLOCKS
    assert in_blocks([1.0] * (least - 1)) == []


def test_blocks_that_drift_apart() -> None:
    def judged(last: float) -> dict[str, object]:
        return steadiness([[0.02, 0.02, 9.0], [0.02], [0.02 * (1 + last)]], 0.0, 2)

    calm, moved = judged(0.99 * MOST_SPREAD), judged(1.01 * MOST_SPREAD)
    assert not calm["unsteady"] and calm["why"] == [] and not list(warnings_of(calm))
    assert calm["block_spread"] == pytest.approx(0.99 * MOST_SPREAD)
    assert calm["block_medians_ms"] == pytest.approx([20, 20, 20 * (1 + 0.99 * MOST_SPREAD)])
    assert moved["unsteady"] and len(list(warnings_of(moved))) == 1


def test_other_work_before() -> None:
    assert not steadiness([], 1.0, 2)["unsteady"]
    busy = steadiness([], 1.01, 2)
    assert busy["unsteady"] and busy["block_spread"] is None and busy["block_medians_ms"] == []
    both = steadiness([[1.0], [2.0]], 8.0, 2)
    assert len(both["why"]) == 2 and len(list(warnings_of(both))) == 1


def test_memory_grows_with_what_is_kept() -> None:
    before = memory()
    with mmap(-1, 50_000_000) as kept:  # an array could lie in memory that was given back before
        np.frombuffer(kept, np.uint8)[:] = 1
        after = memory()
    assert 45 < after["now"] - before["now"] < 100
    assert after["peak"] >= after["now"]
