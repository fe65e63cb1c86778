"""The report: complete, valid JSON, whole files, tables that read as tables."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sonomime.runtime.support.errors import OutputError
from sonomime.training.evaluation.fidelity import Fidelity
from sonomime.training.evaluation.metrics import Leakage
from sonomime.training.evaluation.reconstruction import METHODS, ClipResult
from sonomime.training.evaluation.reconstruction_report import ReconstructionReport as Report
from sonomime.training.evaluation.reconstruction_report import leaks


def result(clip: str, group: str, l1_ratio: float, leakage: Leakage | None) -> ClipResult:
    fidelity = Fidelity(l1_ratio, 0.7, 0.9, math.nan, math.nan, 0.8, 0.5, 0.04, 25, 0.7)
    methods = {name: fidelity._replace(l1_ratio=l1_ratio + i) for i, name in enumerate(METHODS)}
    return ClipResult(clip, clip, group, 9, 8, 1.5, methods, 2.0, "other|one", leakage)


@pytest.fixture
def report() -> Report:
    results = [
        result("a.mp4", "lung", 0.5, Leakage(0.9, 0.02, 0.01)),
        result("b.mp4", "lung", 0.7, Leakage(0.6, 0.4, 0.01)),
        result("c.mp4", "bone", 0.9, None),
    ]
    return Report(
        command="sonomime evaluate x",
        candidate={"kind": "bundle", "manifest_sha256": "ab" * 32},
        settings={"task": "reconstruction", "seed": 0},
        results=results,
        left_out=[("d.dcm", "DICOM has no reader yet")],
        warnings=["no clips.csv"],
    )


def test_json_holds_every_clip_and_every_mean(report: Report) -> None:
    record = json.loads(report.to_json())
    assert record["command"] == "sonomime evaluate x"
    assert record["candidate"]["manifest_sha256"] == "ab" * 32
    assert [clip["clip"] for clip in record["clips"]] == ["a.mp4", "b.mp4", "c.mp4"]
    assert set(record["means"]) == {"all", "lung", "bone"}
    overall = record["means"]["all"]
    assert overall["clips"] == 3 and set(overall["methods"]) == set(METHODS)
    assert overall["methods"]["model"]["l1_ratio"] == pytest.approx(0.7)
    assert overall["methods"]["hold"]["l1_ratio"] == pytest.approx(1.7)
    assert record["means"]["lung"]["methods"]["model"]["l1_ratio"] == pytest.approx(0.6)
    assert overall["leaking"] == ["b.mp4"]
    assert record["clips"][1]["leakage"]["leaks"] and record["clips"][2]["leakage"] is None
    assert record["left_out"] == [{"clip": "d.dcm", "reason": "DICOM has no reader yet"}]


def test_undefined_measures_are_null(report: Report) -> None:
    assert report.record["clips"][0]["methods"]["model"]["motion_agreement"] is None
    assert report.record["means"]["all"]["methods"]["model"]["motion_agreement"] is None
    assert "NaN" not in report.to_json()


def test_every_table_has_as_many_cells_in_every_line(report: Report) -> None:
    text = report.to_markdown()
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) == 4
    for table in tables:
        cells = {line.replace("\\|", "").count("|") for line in table.splitlines()}
        assert len(cells) == 1, table
    assert "d.dcm: DICOM has no reader yet" in text
    assert "no clips.csv" in text
    assert "| - |" in text  # what is not defined


def test_an_empty_list_leaves_no_heading(report: Report) -> None:
    text = replace(report, left_out=[], warnings=[]).to_markdown()
    assert "## Left out" not in text and "## Warnings" not in text


def test_leaks() -> None:
    assert not leaks(Leakage(source=0.9, driving=0.2, floor=0.15))
    assert leaks(Leakage(source=0.9, driving=0.2, floor=0.05))
    assert leaks(Leakage(source=0.1, driving=0.12, floor=0.1))


def test_summary_names_what_matters(report: Report) -> None:
    line = report.summary_line()
    assert "3 clips" in line and "0.700" in line and "leaks in 1 of 2" in line
    assert "no leakage" in replace(report, results=report.results[:1]).summary_line()
    untested = replace(report, results=report.results[2:]).summary_line()
    assert "leakage not tested" in untested


def test_files_appear_whole_under_their_names(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["results.json", "table.md"]
    assert json.loads((tmp_path / "new" / "results.json").read_text())["format"] == 2


def test_a_place_that_cannot_be_written_is_an_output_error(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        report.write(tmp_path / "file" / "report")
