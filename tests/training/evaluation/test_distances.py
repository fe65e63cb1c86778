"""Distances between sets: known answers, and intervals that hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sonomime.training.evaluation.distances import (
    BLOCK,
    frechet,
    kernel,
    kernel_blocks,
    squared_mmd,
    standard_error,
    with_interval,
)
from sonomime.training.evaluation.viewer import Sample


def gaussian(count: int, mean: np.ndarray, root: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose mean and covariance root' root are exact."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T)).T)
    return white @ root + mean


def test_equal_sets_have_no_distance() -> None:
    for shape in ((50, 6), (6, 50), (2, 3)):
        rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        assert frechet(rows, rows[::-1]) == pytest.approx(0, abs=1e-6)
        assert squared_mmd(rows, rows) < 1e-6  # below 0: a row meets itself in the other set alone
    assert math.isnan(frechet(rows[:1], rows)) and math.isnan(squared_mmd(rows, rows[:1]))


@pytest.mark.parametrize("count", [4, 40])
def test_gaussians_that_commute_have_the_closed_form(count: int) -> None:
    """|gap|^2 + sum (a - b)^2, a and b the deviations along the same axes."""
    a, b, gap = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 0.25]), np.array([0.0, 2.0, -1.0])
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    real = gaussian(count, np.zeros(3), np.diag(a) @ turn, 2)
    fake = gaussian(count + 1, gap, np.diag(b) @ turn, 3)
    assert frechet(real, fake) == pytest.approx(5 + np.square(a - b).sum())


def test_it_agrees_with_a_matrix_root() -> None:
    draw = np.random.default_rng(6)
    real = draw.normal(size=(40, 6)) @ draw.normal(size=(6, 6))
    fake = draw.normal(size=(30, 6)) @ draw.normal(size=(6, 6)) + 0.5
    # By scipy.linalg.sqrtm(C_1 C_2), scipy 1.17.1.
    assert frechet(real, fake) == pytest.approx(26.09882650619145)
    assert frechet(fake, real) == pytest.approx(26.09882650619145)


def test_fewer_rows_than_features_give_the_distance_of_their_own_covariance() -> None:
    """Without noise in the features that are added, nothing changes but their number."""
    draw = np.random.default_rng(4)
    real, fake = draw.normal(size=(9, 4)), draw.normal(size=(8, 4)) + 1
    basis = np.linalg.qr(draw.normal(size=(60, 4)))[0].T
    assert frechet(real @ basis, fake @ basis) == pytest.approx(frechet(real, fake))
    # Two sets of one distribution seem further apart the fewer they are.
    same = draw.normal(size=(2, 400, 30))
    few, many = (frechet(same[0, :n], same[1, :n]) for n in (20, 400))
    assert few > 5 * many > 0


def test_the_kernel_distance_is_that_of_a_double_loop_and_unbiased() -> None:
    draw = np.random.default_rng(7)
    x, y = draw.normal(size=(7, 5)), draw.normal(size=(6, 5)) + 0.5

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 5 + 1) ** 3)

    own_x = [k(x[i], x[j]) for i in range(7) for j in range(7) if i != j]
    own_y = [k(y[i], y[j]) for i in range(6) for j in range(6) if i != j]
    other = [k(a, b) for a in x for b in y]
    expected = np.mean(own_x) + np.mean(own_y) - 2 * np.mean(other)
    assert squared_mmd(x, y) == pytest.approx(expected)
    assert kernel(x, y) == pytest.approx(expected)  # one block
    same = [squared_mmd(*draw.normal(size=(2, 10, 3))) for _ in range(400)]
    assert abs(np.mean(same)) < 3 * standard_error(same)


def test_blocks_are_disjoint_and_neither_small_nor_large() -> None:
    for count, blocks in ((50, 1), (350, 3), (1500, 10), (10 * BLOCK + 1, 11)):
        rows = np.zeros((count, 1), np.float32)
        assert len(kernel_blocks(rows, rows)) == blocks
    rows = np.random.default_rng(8).normal(size=(300, 4))
    blocks = kernel_blocks(rows, rows + 1)
    assert kernel(rows, rows + 1) == pytest.approx(np.mean(blocks))
    assert standard_error(blocks) == pytest.approx(np.std(blocks, ddof=1) / math.sqrt(3))
    assert math.isnan(standard_error(blocks[:1]))


def clustered(seed: int, subjects: int = 16, each: int = 20) -> tuple[Sample, Sample]:
    """Rows that differ between subjects as much as within them; the fakes are shifted."""
    draw = np.random.default_rng(seed)
    sets = [
        draw.normal(size=(subjects, 1, 4)) * 0.7 + draw.normal(size=(subjects, each, 4)) + shift
        for shift in (0, 0.5)
    ]
    units = np.repeat(np.arange(subjects), each)
    real, fake = (Sample(rows.reshape(-1, 4), units) for rows in sets)
    return real, fake


SUBJECTS = [f"s{i}" for i in range(16)]


@pytest.mark.slow
def test_intervals_hold_the_expected_distance_about_as_often_as_they_say() -> None:
    found = [with_interval(frechet, *clustered(seed), SUBJECTS, 0) for seed in range(60)]
    expected = np.mean([each["value"] for each in found])
    held = np.mean([each["low"] <= expected <= each["high"] for each in found])
    assert 0.85 <= held <= 1
    assert np.mean([each["half"] for each in found]) > 1.1 * expected  # fewer rows, more bias


def test_an_interval_hangs_on_subjects_and_the_seed_alone() -> None:
    real, fake = clustered(0)
    first = with_interval(frechet, real, fake, SUBJECTS, 1)
    assert first == with_interval(frechet, real, fake, SUBJECTS, 1)
    assert first["low"] < first["value"] == frechet(real.rows, fake.rows) < first["high"]
    assert first["low"] != with_interval(frechet, real, fake, SUBJECTS, 2)["low"]
    # Clips of one subject stay together; fewer than six subjects have no interval.
    pairs = [f"s{i // 2}" for i in range(16)]
    assert with_interval(frechet, real, fake, pairs, 1)["low"] != first["low"]
    few = with_interval(frechet, real, fake, [f"s{i // 4}" for i in range(16)], 1)
    assert few["value"] == first["value"] and math.isnan(few["low"]) and math.isnan(few["half"])
    # Of two small sets of one distribution, which could not be nearer than 0.
    rows = np.random.default_rng(3).normal(size=(2, 16, 4))
    near = with_interval(frechet, *(Sample(each, np.arange(16)) for each in rows), SUBJECTS, 0)
    assert near["low"] == 0 < near["value"] < near["high"]
