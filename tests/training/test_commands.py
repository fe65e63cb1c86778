"""`sonomime train` as a user meets it: clips in, a run out, mistakes told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from sonomime.cli import main
from sonomime.training.checkpoint import load_checkpoint

KEYPOINTS = (
    "model.keypoints.depth=2",
    "model.keypoints.max_features=8",
    "model.motion.depth=2",
    "model.motion.max_features=8",
    "model.generator.width=8",
)
LITE = ("model.matcher.grid=8", "model.matcher.stiff=8", "model.matcher.shading=8")
TINY = [
    "model.image_size=64",
    "train.max_steps=2",
    "train.batch_size=1",
    "train.batchnorm_batches=1",
    "train.log_every=1",
]


@pytest.fixture()
def clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blob_frames: Callable[..., list[Any]]
) -> Path:
    """A bare folder with one clip, a folder of frames."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)
    folder = tmp_path / "clips" / "blob"
    folder.mkdir(parents=True)
    for i, frame in enumerate(blob_frames(6)):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    return folder.parent


def words(clips: Path, *more: str, preset: str = "lite", sets: tuple[str, ...] = ()) -> list[str]:
    model = LITE if preset == "lite" else KEYPOINTS
    settings = [word for value in (*TINY, *model, *sets) for word in ("--set", value)]
    run = ["-o", str(clips.parent / "run")]
    return ["train", preset, "--data", str(clips), *run, *settings, *more]


def test_a_run_and_its_resumption(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(clips)) == 0
    said = capsys.readouterr().err
    assert "its own subject" in said and "done at step 2" in said
    assert "perceptual" not in said
    assert main(words(clips)) == 7
    assert "--resume" in capsys.readouterr().err
    assert main(words(clips, "--resume", sets=("train.max_steps=3",))) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    run = clips.parent / "run"
    checkpoint = load_checkpoint(run / "checkpoint.pt")
    assert checkpoint.step == 3
    assert checkpoint.data == [{"name": "clips", "clips": {"blob": ["blob"]}}]
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("preset", ["ours-pt", "ours-ptg"])
def test_the_papers_presets_train_and_miss_the_perceptual_loss_aloud(
    clips: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ("model.keypoints.width=4", "model.motion.width=4", "model.generator.blocks=1")
    assert main(words(clips, preset=preset, sets=sets)) == 0
    assert "warning: no perceptual loss" in capsys.readouterr().err
    line = json.loads((clips.parent / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert ("discriminator" in line) == (preset == "ours-ptg")


def test_a_match_trains_and_misses_no_perceptual_loss(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("fine=8", "coarse=8", "grid=8", "stiff=4", "shading=8")
    sets = [f"model.matcher.{each}" for each in small]
    assert main(words(clips, preset="lite", sets=sets)) == 0
    assert "perceptual" not in capsys.readouterr().err
    line = json.loads((clips.parent / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert line.keys() >= {"flow", "doubt", "folding", "roughness"}


def test_a_preset_that_needs_a_feature_network_says_so(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(clips, preset="fomm")) == 2
    said = capsys.readouterr().err
    assert "no loss sees the image" in said and "loss.perceptual_weights" in said
    assert not (clips.parent / "run").exists()


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--max-minutes", "0"], 2),
        (["--max-minutes", "nan"], 2),
        (["--set", "train.seed=-1"], 2),
        (["--set", "train.max_step=1"], 2),
        (["--set", "loss.content=1"], 2),
        (["--crop", "1,2,3"], 2),
        (["--split", "test", "--data", "{clips}/none"], 6),
        (["-o", "{clips}/blob/0.png"], 7),
    ],
)
def test_mistakes_are_told_with_a_hint(
    clips: Path, more: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.replace("{clips}", str(clips)) for word in more]
    assert main(words(clips, *given)) == code
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said and "defect" not in said
    assert not (clips.parent / "run").exists()


MATCHING = ("model.landmarks.width=8",)


def test_the_data_say_how_many_landmarks_there_are(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"blob,{i}.png,{name},9,9,1\n" for i in range(6) for name in ("neck", "apex"))
    (clips / "keypoints.csv").write_text("video,frame,keypoint,x,y,visible\n" + rows)
    match = words(clips, preset="lite", sets=MATCHING)
    assert main(match) == 0
    found = load_checkpoint(clips.parent / "run" / "checkpoint.pt")
    assert found.config.model.landmarks.count == 2
    assert found.supervised_names == ["apex", "neck"]
    assert main([*match, "--resume", "--set", "train.max_steps=3"]) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    assert main([*match, "-o", str(clips.parent / "b"), "--set", "model.landmarks.count=3"]) == 2
    assert "model.landmarks.count" in capsys.readouterr().err
    # Without labels the run goes on without a detector, and says so.
    (clips / "keypoints.csv").unlink()
    start = ["--from", str(clips.parent / "run" / "checkpoint.pt")]
    assert main([*match, "-o", str(clips.parent / "c"), *start]) == 0
    assert "apex, neck" in capsys.readouterr().err
    assert load_checkpoint(clips.parent / "c" / "checkpoint.pt").supervised_names == []
