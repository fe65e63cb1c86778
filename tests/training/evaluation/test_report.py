"""The report: means by group, a short summary, tables that read as tables."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import OutputError
from sonomime.training.evaluation.layouts import average
from sonomime.training.evaluation.report import Report
from sonomime.training.evaluation.tables import table


def tracked(name: str, group: str, model: float) -> dict[str, Any]:
    errors = {"model": model, "hold": 4.0, "flow": 2.0}
    row = {"clip": name, "subject": name, "group": group, "driven": 8, "lost": 0.0}
    return {**row, "errors": errors, "points": {"tip": errors}, "share": {"model": model / 4}}


ROWS = tracked("a", "heart", 4.0), tracked("b", "heart", 0.0), tracked("c|d", "lung", 3.0)
REPORT = Report("sonomime evaluate x", {"kind": "fake"}, {"task": "tracking", "seed": 0}, ROWS)


def test_means_are_over_groups_subjects_and_points_with_intervals() -> None:
    record = REPORT.record
    assert list(record["means"]) == ["all", "heart", "lung"]
    ratio = record["means"]["all"]["ratio"]["model"]
    assert ratio["mean"] == pytest.approx(7 / 12) and ratio["low"] < 0.4 < 0.6 < ratio["high"]
    assert record["means"]["lung"]["ratio"]["model"]["low"] is None  # one subject
    assert record["means"]["lung"]["share"]["model"] == 0.75
    assert record["points"]["tip"]["errors"]["model"] == pytest.approx(7 / 3)
    whole = replace(REPORT, rows=[*ROWS, tracked("d", "all", 1.0)]).means
    assert list(whole) == ["all", "heart", "lung"] and whole["all"]["clips"] == 4


def test_what_is_not_defined_counts_in_no_mean() -> None:
    rows = [{"a": {"b": 1.0, "c": math.nan}}, {"a": {"b": math.nan, "c": math.nan}}, {"a": {}}]
    found = average(rows)["a"]
    assert found["b"] == 1 and math.isnan(found["c"])


def test_the_summary_is_short_and_has_the_worst_group_first() -> None:
    lines = REPORT.summary().splitlines()
    assert len(lines) < 25
    names = [line.split("  ")[0] for line in lines if line.startswith("model")]
    assert names == ["model, lung", "model, heart", "model, all"]
    alone = replace(REPORT, rows=ROWS[2:]).summary()
    assert "model, lung" not in alone and "model, all" in alone


def test_a_table_has_dashes_but_no_row_of_them_alone() -> None:
    rows = [{"name": "a", "b": {"c": 0.5}}, {"name": "b", "b": None}, {"name": "c", "d": True}]
    lines = table(rows, "name b.c d").splitlines()
    assert lines[2:] == ["| a | 0.500 | - |", "| c | - | yes |"]
    assert table(rows[1:2], "name b.c") == table([], "name") == ""
    assert "c\\|d" in REPORT.to_markdown()


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        REPORT.write(tmp_path / "file" / "report")
