"""`sonomime evaluate` reads what was held out, and says whether it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import pytest

from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate, open_candidate
from sonomime.training.evaluation.held_out import NO_TEST

from ...toy_bundle import make_toy_bundle
from .fakes import Fake, candidate_of, moving_clip
from .phantoms import write_phantom
from .test_command import evaluate, parse

SIZE = 64
CLIPS = {"one": ("a", "test"), "two": ("b", "val"), "three": ("d", "train"), "four": ("c", "test")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rows = ["clip,subject,group,split,crop"]
    for seed, (name, (subject, split)) in enumerate(CLIPS.items()):
        (folder / name).mkdir()
        for t, frame in enumerate(moving_clip(3, SIZE, 3.0, seed)):
            cv2.imwrite(str(folder / name / f"{t}.png"), frame)
        rows.append(f"{name},{subject},lung,{split},")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Whatever is opened holds its source, and was trained on what this list is given."""
    record: list[dict[str, Any]] = []

    @contextmanager
    def opened(path: Path) -> Iterator[Candidate]:
        yield replace(candidate_of(Fake(), SIZE), data=record)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(run, "open_candidate", opened)
    return record


def result(data: Path, output: Path, *words: object) -> Any:
    assert evaluate("x", "--data", data, "-o", output, *words) == 0
    return json.loads((output / "results.json").read_text())


@pytest.mark.usefixtures("trained_on")
@pytest.mark.parametrize(
    ("words", "clips", "split"),
    [
        ([], ["one", "four"], "test"),
        (["--split", "val"], ["two"], "val"),
        (["--split", "all"], list(CLIPS), "all"),
    ],
)
def test_the_split_test_is_read_unless_another_is_asked_for(
    words: list[str], clips: list[str], split: str, data: Path, tmp_path: Path
) -> None:
    record = result(data, tmp_path / "r", *words)
    assert [clip["clip"] for clip in record["clips"]] == clips
    assert record["settings"]["split"] == split and NO_TEST not in record["warnings"]
    assert parse(*record["command"].split()[2:]).split == split


@pytest.mark.usefixtures("trained_on")
def test_without_a_split_test_all_is_read_and_a_warning_says_so(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("one", "two"):
        (bare / name).symlink_to(data / name)
    record = result(bare, tmp_path / "r")
    assert record["settings"]["split"] == "all" and len(record["clips"]) == 2
    assert NO_TEST in record["warnings"] and NO_TEST in capsys.readouterr().err


def test_what_was_trained_on_is_counted_by_name(
    trained_on: list[dict[str, Any]],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained_on += [{"name": "moved", "clips": {"b": ["three"], "c": ["other"]}}]
    clean = result(data, tmp_path / "r", "--split", "val")["candidate"]
    assert clean["trained_on"] == "moved (2 clips of 2 subjects)"
    assert clean["evaluated_clips_trained_on"] == "0 of 1, by name"
    assert clean["evaluated_subjects_trained_on"] == "1 of 1, by name"
    capsys.readouterr()
    record = result(data, tmp_path / "all", "--split", "all")
    assert record["candidate"]["evaluated_clips_trained_on"] == "1 of 4, by name"
    assert record["candidate"]["evaluated_subjects_trained_on"] == "2 of 4, by name"
    assert len(record["warnings"]) == 2
    said = capsys.readouterr()
    assert "evaluated_clips_trained_on: 1 of 4, by name" in said.out
    assert all(f"warning: {warning}" in said.err for warning in record["warnings"])
    assert "evaluated clips trained on: 1 of 4, by name" in said.err
    trained_on.append({"name": "older"})
    partly = result(data, tmp_path / "partly")["candidate"]
    assert partly["trained_on"] == "moved (2 clips of 2 subjects), older"
    assert partly["evaluated_clips_trained_on"] == "0 of 2, by name, not recorded for older"


def test_older_checkpoints_and_bundles_say_that_they_do_not_know(
    trained_on: list[dict[str, Any]], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert result(data, tmp_path / "r")["candidate"]["trained_on"] == "not recorded"
    trained_on.append({"name": "clips"})
    old = result(data, tmp_path / "r")["candidate"]
    assert (old["trained_on"], old["evaluated_clips_trained_on"]) == ("clips", "not recorded")
    monkeypatch.setattr(run, "open_candidate", open_candidate)
    bundle = make_toy_bundle(tmp_path / "toy", SIZE)
    assert evaluate(bundle, "--data", data, "-o", tmp_path / "b") == 0
    facts = json.loads((tmp_path / "b" / "results.json").read_text())["candidate"]
    assert facts["evaluated_clips_trained_on"].startswith("a bundle does not record")


def test_predictions_too(trained_on: list[dict[str, Any]], tmp_path: Path) -> None:
    made = write_phantom(tmp_path / "phantom")
    clips = {"s1": ["clips/s1.mkv"], "s3": ["clips/s3.mkv"]}
    trained_on.append({"name": "phantom", "clips": clips})
    words = ["--task", "prediction", "--max-frames", 2]
    record = result(made, tmp_path / "r", *words)
    assert [pair["pair"] for pair in record["pairs"]] == ["s0__s1", "s1__s2", "s2__s0"]
    assert record["settings"]["split"] == "test"
    assert record["candidate"]["evaluated_clips_trained_on"] == "1 of 3, by name"
    assert len(record["warnings"]) == 2
