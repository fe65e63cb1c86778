"""The report: means by group, a short summary, tables that read as tables; the bootstrap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from sonomime.training.evaluation.means import average, weighted_ratio
from sonomime.training.evaluation.report import make_record, markdown, summary, table


def tracked(name: str, group: str, model: float) -> dict[str, Any]:
    errors = {"model": model, "hold": 4.0, "flow": 2.0}
    row = {"clip": name, "subject": name, "group": group, "driven": 8, "lost": 0.0}
    return {**row, "errors": errors, "points": {"tip": errors}, "share": {"model": model / 4}}


def record_of(*rows: dict[str, Any]) -> dict[str, Any]:
    settings = {"task": "tracking", "seed": 0}
    return make_record("sonomime evaluate x", {"kind": "fake"}, settings, rows)


ROWS = tracked("a", "heart", 4.0), tracked("b", "heart", 0.0), tracked("c|d", "lung", 3.0)


def test_means_are_over_groups_subjects_and_points_with_intervals() -> None:
    record = record_of(*ROWS)
    assert list(record["means"]) == ["all", "heart", "lung"]
    ratio = record["means"]["all"]["ratio"]["model"]
    assert ratio["mean"] == pytest.approx(7 / 12) and ratio["low"] < 0.4 < 0.6 < ratio["high"]
    assert record["means"]["lung"]["ratio"]["model"]["low"] is None  # one subject
    assert record["means"]["lung"]["share"]["model"] == 0.75
    assert record["points"]["tip"]["errors"]["model"] == pytest.approx(7 / 3)
    whole = record_of(*ROWS, tracked("d", "all", 1.0))["means"]
    assert list(whole) == ["all", "heart", "lung"] and whole["all"]["clips"] == 4


def test_the_summary_is_short_and_has_the_worst_group_first() -> None:
    lines = summary(record_of(*ROWS)).splitlines()
    assert len(lines) < 25
    names = [line.split("  ")[0] for line in lines if line.startswith("model")]
    assert names == ["model, lung", "model, heart", "model, all"]
    alone = summary(record_of(ROWS[2]))
    assert "model, lung" not in alone and "model, all" in alone
    assert "[" in summary(record_of(*ROWS)) and "[" not in alone  # an interval


def test_a_table_has_dashes_but_no_row_of_them_alone() -> None:
    rows = [{"name": "a", "b": {"c": 0.5}}, {"name": "b", "b": None}, {"name": "c", "d": True}]
    lines = table(rows, "name b.c d").splitlines()
    assert lines[2:] == ["| a | 0.500 | - |", "| c | - | yes |"]
    assert table(rows[1:2], "name b.c") == table([], "name") == ""
    assert "c\\|d" in markdown(record_of(*ROWS))


PAIRS = [(a, b) for a in "abcdef" for b in "abcdef" if a != b]


def interval(subjects: Sequence[Sequence[str]], values: Sequence[float], seed: int = 0) -> list:
    """Mean, low and high."""
    return list((weighted_ratio(subjects, values, [1] * len(values), seed) or {}).values())


def test_the_seed_alone_draws() -> None:
    values = np.random.default_rng(0).normal(size=len(PAIRS)).tolist()
    mean, low, high = first = interval(PAIRS, values, 1)
    assert first == interval(PAIRS, values, 1) != interval(PAIRS, values, 2)
    assert low < np.mean(values) < high and mean == pytest.approx(np.mean(values))


def test_clips_of_one_subject_count_as_one() -> None:
    values = np.random.default_rng(0).normal(size=8)
    subjects = [(str(i),) for i in range(8)]
    # Fifty copies of what a subject shows say no more than one.
    fifty = interval([each for each in subjects for _ in range(50)], np.repeat(values, 50).tolist())
    assert fifty == pytest.approx(interval(subjects, values.tolist()))


def test_a_pair_hangs_on_both_subjects() -> None:
    # Driver f alone fails: resampling sources only would never leave it out.
    values = [0.0 if b == "f" else 1.0 for _, b in PAIRS]
    mean, low, high = interval(PAIRS, values)
    assert high == 1 and low < mean
    assert interval([(a,) for a, _ in PAIRS], values)[2] < 1


def test_few_subjects_have_no_interval_and_what_is_not_defined_counts_nowhere() -> None:
    mean, low, high = interval([("a", "b"), ("b", "a")], [0.2, 0.4])
    assert mean == pytest.approx(0.3) and math.isnan(low) and math.isnan(high)
    assert interval([("a",)], [math.nan]) == interval([], []) == []
    units = [("a",), ("b",), ("c",), ("d",)]
    found = weighted_ratio(units, [1, 2, 3, math.nan], [2, 4, 6, 1], seed=0)
    assert found == {"mean": 0.5, "low": pytest.approx(0.5), "high": pytest.approx(0.5)}
    rows = [{"a": {"b": 1.0, "c": math.nan}}, {"a": {"b": math.nan, "c": math.nan}}, {"a": {}}]
    assert average(rows)["a"] == {"b": 1, "c": pytest.approx(math.nan, nan_ok=True)}
