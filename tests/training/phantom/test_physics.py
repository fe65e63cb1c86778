"""The simulator against the physics that it stands for: speckle, point spread, phase, losses.

What is measured, and its bounds, are the benchmark's: its page and these tests cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sonomime.benchmarks.phantom.clips import (
    exact_field,
    exact_maps,
    neighbours,
    seeds,
    stretches,
    subjects,
)
from sonomime.benchmarks.phantom.physics import MEASURES, Check
from sonomime.training.phantom.subject import Subject

SEED = 11


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.__name__)
def test_without_anatomy(measure: Callable[[], list[Check]]) -> None:
    judge(measure())


@pytest.fixture(scope="module")
def pelvic() -> list[Subject]:
    return subjects("pelvic", SEED, 3)


@pytest.mark.slow
def test_neighbouring_frames_correlate_as_real_ones(pelvic: Sequence[Subject]) -> None:
    """METHOD: .85-.98, real clips .86-.99."""
    means = [neighbours(stretches(subject, (22, 36)), subject) for subject in pelvic]
    assert 0.85 < np.mean(means) < 0.98


def test_maps_are_exact(pelvic: Sequence[Subject]) -> None:
    judge(exact_maps([*pelvic, *subjects("heart", SEED, 2)]))


def test_the_exact_field_explains_much_of_a_clip(pelvic: Sequence[Subject]) -> None:
    judge(exact_field(pelvic[0]))


def test_one_seed_one_picture_another_seed_other_speckle(pelvic: Sequence[Subject]) -> None:
    judge(seeds(pelvic[1]))


def judge(checks: list[Check]) -> None:
    assert checks
    assert [str(check) for check in checks if not check.passed] == []
