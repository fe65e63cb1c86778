"""`sonomime evaluate` from the command line to its files: every task, on fakes and real models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
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
from sonomime.training.evaluation.candidate import open_candidate
from sonomime.training.evaluation.run import NO_TEST

from ...lively import SMALL, lively_checkpoint
from ...toy_bundle import make_toy_bundle
from ...toy_displacement import make_displacement_toy
from .fakes import NAMES, SUBJECTS, moving_clip
from .reports import PREDICTION, evaluate, parse


@pytest.mark.usefixtures("trained_on")
def test_the_folder_gets_the_report_and_a_strip_per_clip(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    record = evaluate(output, "copy", "--data", phantom, "--split", "all", "--max-frames", 2)
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == [
        "overview.png",
        "results.json",
        *(f"strips/{i:03d}_{name}.mkv.png" for i, name in enumerate(SUBJECTS)),
        "table.md",
    ]
    clips = [f"clips/{name}.mkv" for name in SUBJECTS]
    means = record["means"]["all"]
    assert [clip["clip"] for clip in record["clips"]] == means["leaking"] == clips
    assert means["methods"]["model"]["l1_ratio"] == 0
    assert means["exact"]["units"] == 4 and means["exact"]["skill"]["oracle"] == 1
    assert list(record["means"]) == ["all", "heart", "pelvic"]
    assert record["means"]["heart"]["clips"] == 1
    said = capsys.readouterr().out
    assert len(said) < 2500 and said.splitlines()[-1].endswith("strips/")
    assert all(str(output / name) in said for name in ("table.md", "results.json"))


@pytest.mark.usefixtures("trained_on")
@pytest.mark.parametrize("more", [["--crop", "20,20,60,60", "--seed", 7], ["--split", "train"]])
def test_options_reach_the_evaluation_and_its_command_and_json_is_all_that_a_program_reads(
    more: list[object], phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["copy", "--data", phantom, "--max-frames", 2, *more]
    record = evaluate(tmp_path / "r", *words, "--json")
    assert json.loads(capsys.readouterr().out) == record
    asked, again = parse(*words, "-o", "r"), parse(*record["command"].split()[2:])
    split = asked.split or "test"
    driven = [(clip["subject"], clip["driven"]) for clip in record["clips"]]
    assert driven == [(name, 2) for name, its in SUBJECTS.items() if its == split]
    assert NO_TEST not in record["warnings"]
    assert (again.crop, again.seed, again.split) == (asked.crop, asked.seed, split)


@pytest.mark.usefixtures("trained_on")
def test_a_bare_folder_is_read_whole_and_what_cannot_be_read_is_left_out(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate(tmp_path / "r", "hold", "--data", places["here"] / "bare")
    assert record["settings"]["split"] == "all"
    assert NO_TEST in record["warnings"] and NO_TEST in capsys.readouterr().err
    assert [clip["clip"] for clip in record["clips"]] == ["one"]
    assert {left["clip"] for left in record["left_out"]} == {"bad.mp4", "heart.dcm"}
    assert all(left["reason"] for left in record["left_out"])
    assert record["clips"][0]["exact"] is record["clips"][0]["leakage"] is None  # nobody else


def test_tracking_writes_its_report_and_what_was_trained_on_is_counted_by_name(
    trained_on: list[dict[str, Any]],
    phantom: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["hold", "--data", phantom, "--task", "tracking", "--max-frames", 1]

    def counted(*more: str) -> tuple[Any, ...]:
        record, said = evaluate(tmp_path / "r", *words, *more), capsys.readouterr().err
        facts, means = record["candidate"], record["means"]["all"]
        assert means["share"]["model"] == pytest.approx(1, rel=1e-3) and means["errors"]["flow"] < 2
        assert (tmp_path / "r" / "strips" / "000_s0.mkv.png").is_file()
        assert all(f"warning: {warning}" in said for warning in record["warnings"])
        both = [facts[f"evaluated_{what}_trained_on"] for what in ("clips", "subjects")]
        return facts["trained_on"], len(record["warnings"]), *both

    assert counted() == ("not recorded", 0, "not recorded", "not recorded")
    clips = {"s3": ["s3.mkv"], "s1": ["other"]}
    trained_on += [{"name": "moved", "clips": clips}]
    name = "moved (2 clips of 2 subjects)"
    assert counted() == (name, 1, "0 of 3, by name", "1 of 3, by name")
    assert counted("--split", "all") == (name, 2, "1 of 4, by name", "2 of 4, by name")
    trained_on.append({"name": "older"})
    assert counted()[2] == "0 of 3, by name, not recorded for older"


def test_a_bundle_and_a_checkpoint_are_evaluated(
    places: dict[str, Path], phantom: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    lively_checkpoint("ours-p", SMALL).save(checkpoint)
    with open_candidate(places["bundle"]) as opened:
        assert (opened.own.motion, opened.other.motion) == ("absolute", "relative")
    words = ["--data", phantom, *PREDICTION, "--max-pairs", 1, "--max-frames", 3]
    record = evaluate(tmp_path / "bundle", places["bundle"], *words)
    facts, exact = record["candidate"], record["pairs"][0]["exact"]
    assert facts["kind"] == "bundle" and len(facts["manifest_sha256"]) == 64
    assert facts["evaluated_clips_trained_on"].startswith("a bundle does not record")
    # At the reference frame nothing moves, whatever the model; afterwards something does.
    assert exact["endpoint_error"] != pytest.approx(exact["endpoint_hold"], rel=1e-3)
    words = ["--data", phantom, "--split", "train", "--max-frames", 1]
    record = evaluate(tmp_path / "checkpoint", checkpoint, *words)
    facts = record["candidate"]
    assert (facts["kind"], facts["step"], facts["own_motion"]) == ("checkpoint", "7", "absolute")
    assert len(facts["sha256"]) == 64 and "torch" in facts
    assert record["clips"][0]["methods"]["model"]["l1_ratio"] > 0


CLIP, PAIR = ("--data", "{phantom}"), ("--data", "{phantom}", *PREDICTION)
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
    (["{bundle}", "--data", "{here}/bare", "--task", "tracking"], InputError),
    (["{bundle}", "--data", "{here}/bare", *PREDICTION], InputError),
    (["{bundle}", *PAIR, "--split", "none"], InputError),
    (["{bundle}", *PAIR, "--crop", "90,90,8,8"], InputError),
    (["{bundle}", *PAIR, "--alignment", "given"], ConfigError),
    (["{blind}", *PAIR, "--alignment", "auto"], ConfigError),
    (["{bundle}", "--data", "{here}/cut"], InputError),
    (["{bundle}", *CLIP, "--max-pairs", "1"], ConfigError),
    (["{bundle}", "--data", "{here}/bare", "--task", "transfer"], InputError),
    (["{bundle}", *CLIP, "--task", "transfer", "--alignment", "given"], ConfigError),
    (["{bundle}", *CLIP, "--task", "tracking", "--network", "vgg19={here}/text.pt"], ConfigError),
    (["{bundle}", *CLIP, "--network", "inception={here}/text.pt"], CheckpointError),
    (["{bundle}", *CLIP, "--network", "lpips=a,b"], ConfigError),
]


@pytest.fixture(scope="module")
def places(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What WRONG names: `here` has a text, a broken bundle, a single picture, a cut field, and a
    bare folder with one clip that can be read."""
    here = tmp_path_factory.mktemp("wrong")
    bundle = make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", 64)
    (here / "text.pt").write_text("not a checkpoint")
    stage = next(Path(shutil.copytree(bundle, here / "broken")).glob("*.onnx"))
    stage.write_bytes(stage.read_bytes() + b"\0")
    for folder, frames in (("still", 1), ("bare/one", 6)):
        (here / folder).mkdir(parents=True)
        for t, frame in enumerate(moving_clip(frames)):
            cv2.imwrite(str(here / folder / f"{t}.png"), frame)
    (here / "bare" / "bad.mp4").write_text("not a video")
    (here / "bare" / "heart.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    field = Path(shutil.copytree(phantom, here / "cut")) / "displacement" / "s2.npz"
    field.write_bytes(field.read_bytes()[:3000])
    blind = make_displacement_toy(here / "blind", landmarks=())
    return {"here": here, "bundle": bundle, "phantom": phantom, "blind": blind}


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


def test_prediction_writes_its_report(
    trained_on: list[dict[str, Any]], phantom: Path, tmp_path: Path
) -> None:
    trained_on.append({"name": "p", "clips": {"s1": ["clips/s1.mkv"], "s3": ["clips/s3.mkv"]}})
    words = ["hold", "--data", phantom, *PREDICTION, "--max-frames", 2]
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
    assert record["candidate"]["evaluated_clips_trained_on"] == "1 of 3, by name"
    # A model that cannot align is not aligned.
    assert record["settings"]["alignment"] == "none" and "--alignment none" in record["command"]
    assert record["pairs"][0]["aligned_by"] == "nothing"
    few = evaluate(tmp_path / "few", *words, "--split", "all", "--max-pairs", 2)
    assert [pair["pair"] for pair in few["pairs"]] == ["s0__s1", "s3__s3"]
    assert "--max-pairs 2" in few["command"]
    # The crop is enlarged by 96 / 64, and so is what moves in it.
    words = [*words[:-1], 5, "--max-pairs", 1]
    full = evaluate(tmp_path / "whole", *words)["pairs"][0]["exact"]["landmark"]
    cropped = evaluate(tmp_path / "crop", *words, "--crop", "16,16,64,64")["pairs"][0]["exact"]
    assert cropped["landmark"]["hold"] == pytest.approx(1.5 * full["hold"], rel=1e-4)
    assert np.isfinite(cropped["skill"]["oracle"])
    assert cropped["landmark"]["truth"] < 0.15 * cropped["landmark"]["hold"]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        evaluate(tmp_path / "file", *words)


@pytest.mark.usefixtures("trained_on")
@pytest.mark.parametrize("task", [(), PREDICTION], ids=["reconstruction", "prediction"])
def test_a_subject_in_two_splits_is_refused_unless_all_are_evaluated(
    task: tuple[str, ...], phantom: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(phantom, tmp_path / "mixed")
    table = folder / "clips.csv"
    lines = [line.split(",") for line in table.read_text().splitlines()]
    first = next(line for line in lines[1:] if line[3] == "train")
    next(line for line in lines[1:] if line[3] == "test")[1] = first[1]
    table.write_text("".join(f"{','.join(line)}\n" for line in lines))
    words = ["hold", "--data", folder, "--max-frames", 2, *task]
    for more in ((), ("--split", "test")):
        with pytest.raises(InputError) as caught:
            evaluate(tmp_path / "r", *words, *more)
        assert "splits" in caught.value.message and "--split all" in caught.value.hint
    assert not (tmp_path / "r").exists()
    record = evaluate(tmp_path / "r", *words, "--split", "all")
    assert any("splits" in warning for warning in record["warnings"])


@pytest.mark.usefixtures("trained_on")
def test_labels_that_cannot_be_right_stop_an_evaluation(phantom: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(phantom, tmp_path / "wrong")
    table = folder / "keypoints.csv"
    first, *rows = table.read_text().splitlines()
    for row in ("clips/{},0,other,999,1,1", "clips/{},99,other,1,1,1"):
        for name, split in SUBJECTS.items():
            if split == "test":
                rows.insert(0, row.format(f"{name}.mkv"))
                break
        table.write_text("\n".join([first, *rows, ""]))
        with pytest.raises(InputError) as caught:
            evaluate(tmp_path / "r", "hold", "--data", folder, "--task", "tracking")
        assert "other" in caught.value.message or "99" in caught.value.message
        rows.pop(0)


def test_names_that_the_model_learned_and_the_data_misspells(phantom: Path, tmp_path: Path) -> None:
    checkpoint = lively_checkpoint("ours-p", SMALL)
    checkpoint.supervised_names = [f"{NAMES[0]}_", "another"]
    checkpoint.save(tmp_path / "checkpoint.pt")
    words = ["--data", phantom, "--max-frames", 2, "--task", "tracking"]
    record = evaluate(tmp_path / "r", tmp_path / "checkpoint.pt", *words)
    assert any(f"{NAMES[0]} (" in w and f"{NAMES[0]}_" in w for w in record["warnings"])
