"""`sonomime evaluate` from the command line to its files: every task, on fakes and real models."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.runtime.support.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    InputError,
    OutputError,
    SonomimeError,
)
from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate
from sonomime.training.evaluation.command import add_evaluate
from sonomime.training.evaluation.held_out import NO_TEST

from ...toy_displacement import make_displacement_toy
from .conftest import SIZE
from .fakes import Copy, Fake, candidate_of, moving_clip
from .phantoms import NAMES
from .phantoms import SIZE as PHANTOM_SIZE

CLIPS = {
    "one": ("a", "lung", "test"),
    "two": ("b", "lung", "test"),
    "three": ("b", "bone", "train"),
    "four": ("d", "bone", "val"),
}


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())
    return parser.parse_args(["evaluate", *map(str, words)])


def evaluate(output: Path, *words: object) -> Any:
    """results.json of `sonomime evaluate`, whose table.md is found to be well formed."""
    args = parse(*words, "-o", output)
    assert args.run(args) == 0
    text = (output / "table.md").read_text()
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) >= 4
    for each in tables:
        assert len({line.replace("\\|", "").count("|") for line in each.splitlines()}) == 1, each
    found = (output / "results.json").read_text()
    record = json.loads(found)
    assert "NaN" not in found
    assert ("## Left out" in text, "## Warnings" in text) == (
        bool(record["left_out"]), bool(record["warnings"]),
    )  # fmt: skip
    return record


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: four clips, one of them labelled, and a format without a reader."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["clip,subject,group,split,crop", "heart.dcm,c,heart,test,"]
    for seed, (name, (subject, group, split)) in enumerate(CLIPS.items()):
        (folder / name).mkdir()
        for t, frame in enumerate(moving_clip(6, SIZE, 3.0, seed)):
            cv2.imwrite(str(folder / name / f"{t}.png"), frame)
        rows.append(f"{name},{subject},{group},{split},")
    (folder / "heart.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`copy` opens as a model that copies the driving frame, `hold` and `phantom` hold the source.

    They were trained on what this list is given.
    """
    record: list[dict[str, Any]] = []

    @contextmanager
    def opened(path: Path) -> Iterator[Candidate]:
        size = PHANTOM_SIZE if path.name == "phantom" else SIZE
        yield replace(candidate_of(Copy() if path.name == "copy" else Fake(), size), data=record)

    monkeypatch.setattr(run, "open_candidate", opened)
    return record


@pytest.mark.usefixtures("trained_on")
def test_the_folder_gets_the_report_and_a_strip_per_clip(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    record = evaluate(output, "copy", "--data", data, "--split", "all", "--max-frames", 2)
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == [
        "overview.png",
        "results.json",
        *(f"strips/{i:03d}_{name}.png" for i, name in enumerate(CLIPS)),
        "table.md",
    ]
    assert [clip["clip"] for clip in record["clips"]] == list(CLIPS)
    assert record["means"]["all"]["methods"]["model"]["l1_ratio"] == 0
    assert record["means"]["all"]["leaking"] == list(CLIPS)
    assert list(record["means"]) == ["all", "bone", "lung"]
    assert record["means"]["bone"]["clips"] == 2 and record["means"]["bone"]["exact"] is None
    assert [left["clip"] for left in record["left_out"]] == ["heart.dcm"]
    said = capsys.readouterr().out
    assert len(said) < 2500 and said.splitlines()[-1].endswith("strips/")
    assert all(str(output / name) in said for name in ("table.md", "results.json"))


@pytest.mark.usefixtures("trained_on")
@pytest.mark.parametrize(
    ("words", "clips", "split"),
    [
        (["--crop", "0,0,40,40", "--seed", 7], ["one", "two"], "test"),
        (["--split", "val"], ["four"], "val"),
    ],
)
def test_options_reach_the_evaluation_and_its_command_and_json_is_all_that_a_program_reads(
    words: list[object],
    clips: list[str],
    split: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["copy", "--data", data, "--max-frames", 2, *words]
    record = evaluate(tmp_path / "r", *words, "--json")
    assert json.loads(capsys.readouterr().out) == record
    assert [clip["clip"] for clip in record["clips"]] == clips
    assert all(clip["driven"] == 2 for clip in record["clips"])
    assert NO_TEST not in record["warnings"]
    asked, again = parse(*words, "-o", "r"), parse(*record["command"].split()[2:])
    assert (again.crop, again.seed, again.split) == (asked.crop, asked.seed, split)


@pytest.mark.usefixtures("trained_on")
def test_a_bare_folder_is_read_whole_and_what_cannot_be_read_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(data / "one", bare / "one")
    (bare / "bad.mp4").write_text("not a video")
    record = evaluate(tmp_path / "r", "hold", "--data", bare)
    assert record["settings"]["split"] == "all"
    assert NO_TEST in record["warnings"] and NO_TEST in capsys.readouterr().err
    assert [clip["clip"] for clip in record["clips"]] == ["one"]
    assert record["left_out"][0]["clip"] == "bad.mp4" and record["left_out"][0]["reason"]
    assert record["clips"][0]["leakage"] is None  # nobody else was there


def test_what_was_trained_on_is_counted_by_name(
    trained_on: list[dict[str, Any]],
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["hold", "--data", data, "--max-frames", 1]
    assert evaluate(tmp_path / "r", *words)["candidate"]["trained_on"] == "not recorded"
    trained_on += [{"name": "moved", "clips": {"d": ["three"], "b": ["other"]}}]
    clean = evaluate(tmp_path / "r", *words, "--split", "val")["candidate"]
    assert clean["trained_on"] == "moved (2 clips of 2 subjects)"
    assert clean["evaluated_clips_trained_on"] == "0 of 1, by name"
    assert clean["evaluated_subjects_trained_on"] == "1 of 1, by name"
    capsys.readouterr()
    record = evaluate(tmp_path / "all", *words, "--split", "all")
    assert record["candidate"]["evaluated_clips_trained_on"] == "1 of 4, by name"
    assert record["candidate"]["evaluated_subjects_trained_on"] == "2 of 3, by name"
    said = capsys.readouterr().err
    assert len(record["warnings"]) == 3  # one of a subject in two splits
    assert all(f"warning: {warning}" in said for warning in record["warnings"])
    trained_on.append({"name": "older"})
    partly = evaluate(tmp_path / "partly", *words)["candidate"]
    assert partly["evaluated_clips_trained_on"] == "0 of 2, by name, not recorded for older"


def test_a_bundle_and_a_checkpoint_are_evaluated(
    bundle: Path, checkpoint: Path, data: Path, phantom: Path, tmp_path: Path
) -> None:
    words = ["--data", phantom, *PREDICTION, "--max-pairs", 1, "--max-frames", 3]
    record = evaluate(tmp_path / "bundle", bundle, *words)
    facts, exact = record["candidate"], record["pairs"][0]["exact"]
    assert facts["kind"] == "bundle" and len(facts["manifest_sha256"]) == 64
    assert facts["evaluated_clips_trained_on"].startswith("a bundle does not record")
    # At the reference frame nothing moves, whatever the model; afterwards something does.
    assert exact["endpoint_error"] != pytest.approx(exact["endpoint_hold"], rel=1e-3)
    words = ["--data", data, "--split", "val", "--max-frames", 1]
    record = evaluate(tmp_path / "checkpoint", checkpoint, *words)
    assert record["candidate"]["kind"] == "checkpoint" and record["candidate"]["step"] == "3"
    assert len(record["candidate"]["sha256"]) == 64 and "torch" in record["candidate"]
    assert record["clips"][0]["methods"]["model"]["l1_ratio"] > 0


PREDICTION = ("--task", "prediction")
CLIP, PAIR = ("--data", "{data}"), ("--data", "{phantom}", *PREDICTION)
WRONG: list[tuple[Sequence[str], type[SonomimeError]]] = [
    (["{here}/missing.pt", *CLIP], InputError),
    (["{here}", *CLIP], InputError),
    (["{here}/text.pt", *CLIP], CheckpointError),
    (["{here}/broken", *CLIP], BundleError),
    (["{bundle}", "--data", "{here}/missing"], InputError),
    (["{bundle}", *CLIP, "--split", "none"], InputError),
    (["{bundle}", *CLIP, "--crop", "1,2,3"], ConfigError),
    (["{bundle}", *CLIP, "--crop", "0,0,999,999"], InputError),
    (["{bundle}", "--data", "{here}/still"], InputError),
    (["{bundle}", *CLIP, "--alignment", "none"], ConfigError),
    (["{bundle}", *CLIP, "--task", "tracking"], InputError),
    (["{bundle}", *CLIP, *PREDICTION], InputError),
    (["{bundle}", *PAIR, "--split", "none"], InputError),
    (["{bundle}", *PAIR, "--crop", "90,90,8,8"], InputError),
    (["{bundle}", *PAIR, "--alignment", "given"], ConfigError),
    (["{blind}", *PAIR, "--alignment", "auto"], ConfigError),
    (["{bundle}", "--data", "{here}/cut"], InputError),
]


@pytest.fixture(scope="module")
def places(
    bundle: Path, data: Path, phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """What WRONG names: `here` has a text, a broken bundle, a single picture and a cut field."""
    here = tmp_path_factory.mktemp("wrong")
    (here / "text.pt").write_text("not a checkpoint")
    stage = next(Path(shutil.copytree(bundle, here / "broken")).glob("*.onnx"))
    stage.write_bytes(stage.read_bytes() + b"\0")
    (here / "still").mkdir()
    cv2.imwrite(str(here / "still" / "0.png"), moving_clip(3, SIZE)[0])
    field = Path(shutil.copytree(phantom, here / "cut")) / "displacement" / "s2.npz"
    field.write_bytes(field.read_bytes()[:3000])
    blind = make_displacement_toy(here / "blind", landmarks=())
    return {"here": here, "data": data, "bundle": bundle, "phantom": phantom, "blind": blind}


@pytest.mark.parametrize(("words", "error"), WRONG)
def test_wrong_input_is_a_clear_error_and_leaves_no_report(
    words: Sequence[str], error: type[SonomimeError], places: dict[str, Path], tmp_path: Path
) -> None:
    output = tmp_path / "r"
    with pytest.raises(error) as caught:
        evaluate(output, *(word.format(**places) for word in words))
    assert caught.value.hint
    assert not list(output.rglob("*.*"))


@pytest.mark.parametrize(
    "words", [("--max-frames", 0), ("--task", "divination"), ("--seed", -1), ("--seed", "x")]
)
def test_what_is_not_offered_is_refused_at_once(
    words: tuple[object, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("x", "--data", "y", "-o", "z", *words)
    assert str(words[0]) in capsys.readouterr().err


@pytest.mark.usefixtures("trained_on")
def test_tracking_writes_its_report(data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "labelled"))
    labels = [f"one,{t}.png,tip,{30 + 3 * (t - 3)},20,1" for t in range(6)]
    (folder / "keypoints.csv").write_text("\n".join(["video,frame,keypoint,x,y,visible", *labels]))
    record = evaluate(tmp_path / "r", "copy", "--data", folder, "--task", "tracking")
    assert [clip["clip"] for clip in record["clips"]] == ["one"]
    assert {left["clip"] for left in record["left_out"]} == {"two", "heart.dcm"}
    # The fake's deformation stays, whatever its picture shows: a copy gains nothing here.
    assert record["means"]["all"]["share"]["model"] == pytest.approx(1, rel=1e-3)
    assert record["means"]["all"]["errors"]["flow"] < 2
    assert (tmp_path / "r" / "strips" / "000_one.png").is_file()


def test_prediction_writes_its_report_and_reconstruction_takes_the_exact_field_along(
    trained_on: list[dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    trained_on.append({"name": "p", "clips": {"s1": ["clips/s1.mkv"], "s3": ["clips/s3.mkv"]}})
    words = ["phantom", "--data", phantom, *PREDICTION, "--max-frames", 2]
    record = evaluate(tmp_path / "r", *words)
    pairs = ["s0__s1", "s1__s2", "s2__s0"]
    assert [pair["pair"] for pair in record["pairs"]] == pairs
    assert sorted(path.name for path in (tmp_path / "r" / "strips").iterdir()) == [
        f"{i:03d}_{pair}.png" for i, pair in enumerate(pairs)
    ]
    means, subjects = record["means"]["exact"], record["subjects"]
    assert means["skill"]["model"] == 0
    assert means["landmark_ratio"]["low"] <= 1.001 and set(means["landmarks"]) == set(NAMES)
    assert set(subjects["source"]) == set(subjects["driving"]) == {"s0", "s1", "s2"}
    exact = evaluate(
        tmp_path / "own", "phantom", "--data", phantom, "--split", "train", "--max-frames", 2
    )["means"]["all"]["exact"]
    assert exact["units"] == exact["skill"]["oracle"] == 1
    assert record["candidate"]["evaluated_clips_trained_on"] == "1 of 3, by name"
    # A model that cannot align is not aligned.
    assert record["settings"]["alignment"] == "none" and "--alignment none" in record["command"]
    assert record["pairs"][0]["aligned_by"] == "nothing"
    words = [*words, "--split", "all", "--max-pairs", 2]
    few = evaluate(tmp_path / "few", *words)
    assert [pair["pair"] for pair in few["pairs"]] == ["s0__s1", "s3__s3"]
    assert "--max-pairs 2" in few["command"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        evaluate(tmp_path / "file", *words)


@pytest.mark.usefixtures("trained_on")
def test_a_crop_moves_everything_along(phantom: Path, tmp_path: Path) -> None:
    words = ["phantom", "--data", phantom, *PREDICTION, "--max-pairs", 1, "--max-frames", 5]
    full = evaluate(tmp_path / "whole", *words)["pairs"][0]["exact"]
    cropped = evaluate(tmp_path / "r", *words, "--crop", "16,16,64,64")["pairs"][0]["exact"]
    # The crop is enlarged by 96 / 64, and so is what moves in it.
    assert cropped["landmark"]["hold"] == pytest.approx(1.5 * full["landmark"]["hold"], rel=1e-4)
    assert np.isfinite(cropped["skill"]["oracle"])
    assert cropped["landmark"]["truth"] < 0.15 * cropped["landmark"]["hold"]
