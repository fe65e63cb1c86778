"""`sonomime evaluate` from the command line to its files, on a bundle, a checkpoint and a fake."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    InputError,
    OutputError,
)
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import config_from_dict
from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate, open_candidate
from sonomime.training.evaluation.command import add_evaluate
from sonomime.training.evaluation.run import command_line
from sonomime.training.models.keypoints.model import AnimationModel

from ...toy_bundle import make_toy_bundle
from .fakes import Copy, candidate_of, moving_clip

SIZE = 64


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())
    return parser.parse_args(["evaluate", *map(str, words)])


def evaluate(*words: object) -> int:
    args = parse(*words)
    return int(args.run(args))


@pytest.fixture(autouse=True)
def own_cache_and_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # On a busy machine two threads wait for each other far longer than these tiny models take.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder: three clips of two subjects and a format without a reader."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["clip,subject,group,split,crop"]
    for seed, (name, subject, group, split) in enumerate(
        [
            ("one", "a", "lung", "test"),
            ("two", "b", "lung", "test"),
            ("three", "b", "bone", "train"),
        ]
    ):
        (folder / name).mkdir()
        for t, frame in enumerate(moving_clip(6, SIZE, 3.0, seed)):
            cv2.imwrite(str(folder / name / f"{t}.png"), frame)
        rows.append(f"{name},{subject},{group},{split},")
    (folder / "heart.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 64)
    rows.append("heart.dcm,c,heart,test,")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", SIZE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"width": 4, "max_features": 8, "depth": 2, "head_kernel": 3}
    config = config_from_dict(
        {
            "preset": "tiny",
            "model": {
                "image_size": SIZE,
                "keypoints": {**small, "self_supervised": 3},
                "motion": small,
                "generator": {"width": 4, "blocks": 1},
            },
        }
    )
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    Checkpoint(config, 3, AnimationModel(config.model).state_dict()).save(path)
    return path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A path that opens as the predictor that copies the driving frame."""

    @contextmanager
    def opened(path: Path) -> Iterator[Candidate]:
        yield candidate_of(Copy(), SIZE)

    monkeypatch.setattr(run, "open_candidate", opened)
    return tmp_path / "fake"


def test_the_folder_gets_the_report_and_a_strip_per_clip(
    fake: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "report"
    words = [fake, "--data", data, "--task", "reconstruction", "--split", "all"]
    assert evaluate(*words, "-o", output) == 0
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == [
        "overview.png",
        "results.json",
        "strips/000_one.png",
        "strips/001_two.png",
        "strips/002_three.png",
        "table.md",
    ]
    record = json.loads((output / "results.json").read_text())
    assert [clip["clip"] for clip in record["clips"]] == ["one", "two", "three"]
    assert record["means"]["all"]["methods"]["model"]["l1_ratio"] == 0
    assert record["means"]["all"]["leaking"] == ["one", "two", "three"]
    assert [left["clip"] for left in record["left_out"]] == ["heart.dcm"]
    said = capsys.readouterr()
    assert said.out == (output / "table.md").read_text()
    assert "leaks in 3 of 3" in said.err


def test_json_is_all_that_a_program_reads(
    fake: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(fake, "--data", data, "-o", tmp_path / "r", "--split", "test", "--json")
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "r" / "results.json").read_text())
    assert [clip["clip"] for clip in record["clips"]] == ["one", "two"]
    assert record["clips"][0]["driver"] == "two"


def test_options_reach_the_evaluation(fake: Path, data: Path, tmp_path: Path) -> None:
    words = [fake, "--data", data, "-o", tmp_path / "r"]
    evaluate(*words, "--max-frames", 2, "--crop", "0,0,40,40", "--seed", 7)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert all(clip["driven"] == 2 for clip in record["clips"])
    assert record["settings"]["crop"] == "0,0,40,40" and record["settings"]["seed"] == 7
    again = parse(*record["command"].split()[2:])
    assert command_line(again) == record["command"]


def test_a_bundle_through_the_runtime(bundle: Path, data: Path, tmp_path: Path) -> None:
    evaluate(bundle, "--data", data, "-o", tmp_path / "r", "--max-frames", 3)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["candidate"]["kind"] == "bundle"
    assert len(record["candidate"]["manifest_sha256"]) == 64
    assert "onnxruntime" in record["candidate"] and "numpy" in record["candidate"]
    measured = record["clips"][0]["methods"]["model"]
    assert measured["l1_ratio"] > 0 and measured["sharpness"] > 0.5
    # The toy warps its source and nothing else, so its speckle is that of the warped source.
    assert record["clips"][0]["leakage"]["source"] > 0.8


def test_a_checkpoint_through_torch(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    evaluate(checkpoint, "--data", data, "-o", tmp_path / "r", "--max-frames", 2)
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert record["candidate"]["kind"] == "checkpoint" and record["candidate"]["step"] == "3"
    assert len(record["candidate"]["sha256"]) == 64 and "torch" in record["candidate"]
    assert record["clips"][0]["methods"]["model"]["l1_ratio"] > 0


def test_absolute_and_relative_are_two_predictors(bundle: Path, checkpoint: Path) -> None:
    source, _, last = moving_clip(3, SIZE, 6.0)
    for path in (bundle, checkpoint):
        with open_candidate(path) as subject:
            results: list[np.ndarray] = []
            for predictor in (subject.own, subject.other):
                predictor.set_source(source)
                predictor.set_reference(last)
                predictor.animate(last)
                results.append(predictor.read("deformation"))
            # Relative to the frame itself nothing moves; absolute motion does.
            assert not np.allclose(*results)


WRONG: list[tuple[Sequence[str], type[Exception]]] = [
    (["{here}/missing.pt", "--data", "{data}"], InputError),
    (["{here}", "--data", "{data}"], InputError),
    (["{here}/text.pt", "--data", "{data}"], CheckpointError),
    (["{broken}", "--data", "{data}"], BundleError),
    (["{bundle}", "--data", "{here}/missing"], InputError),
    (["{bundle}", "--data", "{data}", "--split", "none"], InputError),
    (["{bundle}", "--data", "{data}", "--crop", "1,2,3"], ConfigError),
    (["{bundle}", "--data", "{data}", "--crop", "0,0,999,999"], InputError),
    (["{bundle}", "--data", "{still}"], InputError),
]


@pytest.mark.parametrize(("words", "error"), WRONG)
def test_wrong_input_is_a_clear_error_and_leaves_no_report(
    words: Sequence[str], error: type[Exception], bundle: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    broken = make_toy_bundle(tmp_path / "broken", SIZE)
    stage = next(broken.glob("*.onnx"))
    stage.write_bytes(stage.read_bytes() + b"\0")
    still = tmp_path / "still"
    still.mkdir()
    cv2.imwrite(str(still / "0.png"), moving_clip(3, SIZE)[0])
    places = {"here": tmp_path, "data": data, "bundle": bundle, "broken": broken, "still": still}
    output = tmp_path / "r"
    with pytest.raises(error) as caught:
        evaluate(*(word.format(**places) for word in words), "-o", output)
    assert getattr(caught.value, "hint", "")
    assert not list(output.rglob("*.*"))


def test_a_run_folder_is_led_to_its_checkpoint(checkpoint: Path, data: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(checkpoint.parent, "--data", data, "-o", checkpoint.parent / "r")
    assert str(checkpoint) in caught.value.hint


def test_an_output_that_cannot_be_written_is_found_at_once(
    bundle: Path, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        evaluate(bundle, "--data", data, "-o", tmp_path / "file")


@pytest.mark.parametrize("words", [["--max-frames", "0"], ["--task", "divination"]])
def test_what_is_not_offered_is_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        parse("x", "--data", tmp_path, "-o", tmp_path / "r", *words)


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    assert "example:" in capsys.readouterr().out


def test_registration_imports_nothing_heavy(
    run_python: Callable[..., tuple[int, str, str]],
) -> None:
    code = (
        "import sys; import sonomime.training.commands;"
        "print([m for m in ('torch', 'cv2', 'numpy', 'onnxruntime') if m in sys.modules])"
    )
    status, output, errors = run_python(code)
    assert status == 0, errors
    assert output.strip() == "[]"


def test_a_clip_that_cannot_be_read_is_left_out_with_its_reason(
    fake: Path, data: Path, tmp_path: Path, blob_frames: Callable[..., list[Any]]
) -> None:
    folder = tmp_path / "bare"
    (folder / "good").mkdir(parents=True)
    for t, frame in enumerate(blob_frames(5, SIZE, SIZE)):
        cv2.imwrite(str(folder / "good" / f"{t}.png"), frame)
    (folder / "bad.mp4").write_text("not a video")
    evaluate(fake, "--data", folder, "-o", tmp_path / "r")
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert [clip["clip"] for clip in record["clips"]] == ["good"]
    assert record["left_out"][0]["clip"] == "bad.mp4" and record["left_out"][0]["reason"]
    assert record["clips"][0]["leakage"] is None  # nobody else was there
    assert "no clips.csv" in " ".join(record["warnings"])


@pytest.mark.parametrize("words", [("--seed", -1), ("--max-frames", 0)])
def test_numbers_out_of_range_are_refused_at_once(
    words: tuple[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("x", "--data", "y", "-o", "z", *words)
    assert words[0] in capsys.readouterr().err


def test_tracking_writes_its_report(
    fake: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labelled"
    shutil.copytree(data, folder)
    labels = [f"one,{t}.png,tip,{30 + 3 * (t - 3)},20,1" for t in range(6)]
    (folder / "keypoints.csv").write_text("\n".join(["video,frame,keypoint,x,y,visible", *labels]))
    words = [fake, "--data", folder, "--task", "tracking", "--split", "test"]
    evaluate(*words, "-o", tmp_path / "r")
    record = json.loads((tmp_path / "r" / "results.json").read_text())
    assert [clip["clip"] for clip in record["clips"]] == ["one"]
    assert {left["clip"] for left in record["left_out"]} == {"two", "heart.dcm"}
    # The fake's deformation stays, whatever its picture shows: a copy gains nothing here.
    assert record["means"]["all"]["share"]["model"] == pytest.approx(1, rel=1e-3)
    assert record["means"]["all"]["errors"]["flow"] < 2
    assert "of hold's" in capsys.readouterr().err
    assert (tmp_path / "r" / "strips" / "000_one.png").is_file()


def test_tracking_without_labels_says_what_it_needs(fake: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(fake, "--data", data, "--task", "tracking", "-o", tmp_path / "r")
    assert "keypoints.csv" in caught.value.hint
