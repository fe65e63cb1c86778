"""The bootstrap over subjects: what is resampled, what is kept together, what is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sonomime.training.evaluation.intervals import weighted_mean, weighted_ratio

PAIRS = [(a, b) for a in "abcdef" for b in "abcdef" if a != b]


def test_the_seed_alone_draws() -> None:
    values = np.random.default_rng(0).normal(size=len(PAIRS)).tolist()
    first = weighted_mean(PAIRS, values, seed=1)
    assert first == weighted_mean(PAIRS, values, seed=1)
    assert first != weighted_mean(PAIRS, values, seed=2)
    assert first is not None and first.low < np.mean(values) < first.high
    assert first.mean == pytest.approx(np.mean(values))


def test_clips_of_one_subject_count_as_one() -> None:
    rng = np.random.default_rng(0)
    by_subject = rng.normal(size=8)
    one = weighted_mean([(str(i),) for i in range(8)], by_subject.tolist(), seed=0)
    many = weighted_mean(
        [(str(i),) for i in range(8) for _ in range(50)], np.repeat(by_subject, 50).tolist(), seed=0
    )
    # Fifty copies of what a subject shows say no more than one.
    assert many == pytest.approx(one)


def test_a_pair_hangs_on_both_subjects() -> None:
    # Driver f alone fails: resampling sources only would never leave it out.
    values = [0.0 if b == "f" else 1.0 for _, b in PAIRS]
    found = weighted_mean(PAIRS, values, seed=0)
    assert found is not None and found.high == 1 and found.low < found.mean
    sources = weighted_mean([(a,) for a, _ in PAIRS], values, seed=0)
    assert sources is not None and sources.high < 1


def test_few_subjects_have_no_interval() -> None:
    found = weighted_mean([("a", "b"), ("b", "a")], [0.2, 0.4], seed=0)
    assert found is not None and found.mean == pytest.approx(0.3)
    assert math.isnan(found.low) and math.isnan(found.high)
    assert weighted_mean([("a",)], [math.nan], seed=0) is None
    assert weighted_mean([], [], seed=0) is None


def test_what_is_not_defined_counts_nowhere() -> None:
    units = [("a",), ("b",), ("c",), ("d",)]
    found = weighted_ratio(units, [1, 2, 3, math.nan], [2, 4, 6, 1], seed=0)
    assert found == pytest.approx((0.5, 0.5, 0.5))
