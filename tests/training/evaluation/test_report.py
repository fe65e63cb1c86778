"""The report: complete, valid JSON, whole files, tables that read as tables, a short summary."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.support.errors import OutputError
from sonomime.training.evaluation.report import Report
from sonomime.training.evaluation.tables import table

NAN = math.nan


def exact(skill: float, names: tuple[str, ...] = ("apex",)) -> dict[str, Any]:
    """What an exact field allows: of the model and of hold and oracle, whose errors are round."""
    landmark = {"model": 1 - skill, "hold": 1.0, "oracle": 0.1, "truth": 0.05}
    return {
        "l1": {"model": 0.1, "hold": 0.2, "oracle": 0.05},
        "skill": {"model": skill, "hold": 0.0, "oracle": 1.0},
        "endpoint_error": 1.0,
        "endpoint_hold": 4.0,
        "landmarks": dict.fromkeys(names, landmark),
        "landmark": landmark if names else None,
        "landmark_ratio": 1 - skill if names else NAN,
    }


def methods(l1_ratio: float, *names: str, agreement: float = NAN) -> dict[str, Any]:
    """Measures of methods, each worse by 1 than the one before it."""
    row = {"sharpness": 0.9, "motion_agreement": agreement, "l1": 0.04, "psnr": 25.0}
    return {name: {"l1_ratio": l1_ratio + i, **row} for i, name in enumerate(names)}


def clip(name: str, group: str, l1_ratio: float, leaks: bool | None, **more: Any) -> dict[str, Any]:
    leakage = {"source": 0.9, "driving": 0.4 if leaks else 0.0, "floor": 0.0, "leaks": leaks}
    row = {"clip": name, "subject": name, "group": group, "frames": 9, "driven": 8}
    row |= {"mean_flow": 1.5, "blur_sigma": 2.0, "exact": None, "own_size": None}
    row |= {"methods": methods(l1_ratio, "model", "hold", "blur", "flow"), "driver": "one|two"}
    return {**row, "leakage": None if leaks is None else leakage, **more}


def pair(a: str, b: str, skill: float) -> dict[str, Any]:
    row = {"pair": f"{a}__{b}", "source_subject": a, "driving_subject": b, "group": "pelvic"}
    row |= {"methods": methods(0.5, "model", "hold", "oracle"), "exact": exact(skill)}
    return {**row, "aligned_by": "apex", "driven": 3, "mean_flow": 4.0}


def tracked(name: str, group: str, model: float) -> dict[str, Any]:
    errors = {"model": model, "hold": 4.0, "flow": 2.0}
    row = {"clip": name, "subject": name, "group": group, "driven": 8, "lost": 0.0}
    return {**row, "errors": errors, "points": {"tip": errors}, "share": {"model": model / 4}}


def report(task: str, *rows: dict[str, Any]) -> Report:
    settings = {"task": task, "seed": 0}
    left = [("d.dcm", "DICOM has no reader yet")]
    return Report("sonomime evaluate x", {"kind": "fake"}, settings, rows, left, ["no clips.csv"])


SIZED = {"width": 300, "height": 200, "driven": 8, "methods": {"enlarged": {"sharpness": 0.5}}}
REPORTS = {
    "reconstruction": report(
        "reconstruction",
        clip("a.mp4", "lung", 0.5, leaks=False),
        clip("b.mp4", "lung", 0.7, leaks=True, exact=exact(0.5, ()), own_size=SIZED),
        clip("c.mp4", "bone", 0.9, leaks=None),
    ),
    "prediction": report("prediction", pair("a", "b", 0.2), pair("b", "c", 0.4), pair("c", "a", 0)),
    "tracking": report(
        "tracking",
        tracked("a", "heart", 4.0),
        tracked("b", "heart", 0.0),
        tracked("c", "lung", 3.0),
    ),
}


def test_a_reconstruction_has_means_over_the_clips_that_define_a_measure() -> None:
    rows = [*REPORTS["reconstruction"].rows]
    rows[1]["methods"]["model"]["motion_agreement"] = 0.4
    record = replace(REPORTS["reconstruction"], rows=rows).record
    assert record["command"] == "sonomime evaluate x" and record["format"] == 2
    assert [row["clip"] for row in record["clips"]] == ["a.mp4", "b.mp4", "c.mp4"]
    assert record["left_out"] == [{"clip": "d.dcm", "reason": "DICOM has no reader yet"}]
    assert list(record["means"]) == ["all", "bone", "lung"]
    overall = record["means"]["all"]
    assert overall["clips"] == 3
    assert overall["methods"]["model"]["l1_ratio"] == pytest.approx(0.7)
    assert overall["methods"]["hold"]["l1_ratio"] == pytest.approx(1.7)
    assert overall["methods"]["model"]["motion_agreement"] == pytest.approx(0.4)
    assert overall["leaking"] == ["b.mp4"] and overall["leakage"]["driving"] == 0.2
    assert overall["own_size"]["clips"] == overall["exact"]["units"] == 1
    assert record["means"]["lung"]["methods"]["model"]["l1_ratio"] == pytest.approx(0.6)
    bone = record["means"]["bone"]
    assert bone["leakage"] is bone["exact"] is bone["own_size"] is None
    assert bone["methods"]["model"]["motion_agreement"] is None


def test_predictions_and_tracking_have_means_by_subject_and_point_and_intervals() -> None:
    record = REPORTS["prediction"].record
    skill = record["means"]["exact"]["model_skill"]
    assert skill["mean"] == pytest.approx(0.2) and skill["low"] <= 0.2 <= skill["high"]
    assert record["means"]["exact"]["landmark_ratio"]["mean"] == pytest.approx(0.8)
    assert record["subjects"]["source"]["b"]["skill"]["model"] == 0.4
    assert record["subjects"]["driving"]["b"]["skill"]["model"] == 0.2
    record = REPORTS["tracking"].record
    ratio = record["means"]["all"]["ratio"]["model"]
    assert ratio["mean"] == pytest.approx(7 / 12) and ratio["low"] < 0.4 < 0.6 < ratio["high"]
    assert record["means"]["lung"]["share"]["model"] == 0.75
    assert record["points"]["tip"]["errors"]["model"] == pytest.approx(7 / 3)


@pytest.mark.parametrize("task", REPORTS)
def test_json_and_tables_are_whole(task: str) -> None:
    text, found = REPORTS[task].to_markdown(), REPORTS[task].to_json()
    assert json.loads(found) == REPORTS[task].record and "NaN" not in found
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) >= 4
    for each in tables:
        cells = {line.replace("\\|", "").count("|") for line in each.splitlines()}
        assert len(cells) == 1, each
    assert "d.dcm: DICOM has no reader yet" in text and "no clips.csv" in text
    empty = replace(REPORTS[task], left_out=[], warnings=[]).to_markdown()
    assert "## Left out" not in empty and "## Warnings" not in empty


def test_the_summary_is_short_and_has_the_worst_group_first() -> None:
    summaries = {task: one.summary().splitlines() for task, one in REPORTS.items()}
    assert all(len(lines) < 25 for lines in summaries.values())
    first = {task: [line.split("  ")[0] for line in lines] for task, lines in summaries.items()}
    groups = [name for name in first["reconstruction"] if name.startswith("model")]
    assert groups == ["model, bone", "model, lung", "model, all"]
    groups = [name for name in first["tracking"] if name.startswith("model")]
    assert groups == ["model, lung", "model, heart", "model, all"]
    assert "model, pelvic" not in first["prediction"]  # there is one group only
    assert "not moved (hold)" in first["prediction"] and "best blur" not in first["prediction"]


def test_a_bare_folder_beside_groups_does_not_replace_the_whole() -> None:
    rows = [*REPORTS["tracking"].rows, tracked("d", "all", 1.0)]
    found = replace(REPORTS["tracking"], rows=rows).means
    assert list(found) == ["all", "heart", "lung"] and found["all"]["clips"] == 4


def test_a_table_has_dashes_but_no_row_of_them_alone() -> None:
    rows = [{"name": "a", "b": {"c": 0.5}}, {"name": "b", "b": None}, {"name": "c", "d": True}]
    lines = table(rows, "name b.c d").splitlines()
    assert lines[2:] == ["| a | 0.500 | - |", "| c | - | yes |"]
    assert table(rows[1:2], "name b.c") == table([], "name") == ""


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        REPORTS["tracking"].write(tmp_path / "file" / "report")
