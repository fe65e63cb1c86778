"""`sonomime train` as a user meets it: clips in, a run out, signals, mistakes reported."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from sonomime.cli import build_parser, main
from sonomime.training import commands
from sonomime.training.checkpoint import load_checkpoint

from .small_runs import KEYPOINTS, LITE


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


def words(clips: Path, *more: str, preset: str = "lite") -> list[str]:
    sets = (*(LITE if preset == "lite" else KEYPOINTS), "train.max_steps=2", "train.batch_size=1")
    run = ["train", preset, "--data", str(clips), "-o", str(clips.parent / "run")]
    return [*run, *(f"--set={value}" for value in sets), *more]


def last_line(clips: Path) -> dict[str, float]:
    lines = (clips.parent / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, len(lines) + 1))
    return dict(json.loads(lines[-1]))


@pytest.mark.parametrize("verb", ["train lite", "evaluate checkpoint.pt"])
def test_data_that_is_given_twice_is_both(verb: str) -> None:
    given = [*verb.split(), "--data", "a", "--data", "b", "c", "-o", "out"]
    assert build_parser().parse_args(given).data == [Path("a"), Path("b"), Path("c")]


def test_a_run_and_its_resumption(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = clips.parent / "run"
    (clips / "still").mkdir()
    shutil.copy(clips / "blob" / "0.png", clips / "still")
    assert main(words(clips)) == 0
    said = capsys.readouterr().err
    assert "its own subject" in said and "done at step 2" in said
    assert "left out: still:" in said and "perceptual" not in said
    assert last_line(clips).keys() >= {"flow", "doubt", "folding", "roughness"}
    assert main(words(clips)) == 7
    assert "--resume" in capsys.readouterr().err
    # What a process left that was killed while it wrote, and steps that are run again.
    with (run / "log.jsonl").open("a") as log:
        log.write('{"step": 3, "l1": 9}\n{"step": 4, "l1"')
    leftovers = [".checkpoint.0123abcd.part.pt", "pictures/.0000002.0123abcd.part.png"]
    leftovers += [f".{name}.0123abcd.part{end}" for name, end in (
        ("report", ".html"), ("run", ".json"), ("log", ".jsonl"),
    )]  # fmt: skip
    for name in (*leftovers, ".other.0123abcd.part.pt"):
        (run / name).write_bytes(b"half")
    assert main(words(clips, "--resume", "--set", "train.max_steps=3")) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    assert not any((run / name).exists() for name in leftovers)
    assert (run / ".other.0123abcd.part.pt").exists()  # not this run's own
    checkpoint = load_checkpoint(run / "checkpoint.pt")
    assert checkpoint.step == last_line(clips)["step"] == 3 and last_line(clips)["l1"] < 9
    assert checkpoint.data == [{"name": "clips", "clips": {"blob": ["blob"]}}]


def test_the_papers_presets_warn_of_the_missing_perceptual_loss_or_need_it(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    off = ("loss.reconstruction=0.0", "loss.feature_matching=0.0", "model.keypoints.supervised=0")
    assert main(words(clips, *(f"--set={value}" for value in off), preset="fomm")) == 2
    assert "loss.perceptual_weights" in capsys.readouterr().err
    assert not (clips.parent / "run").exists()
    assert main(words(clips, preset="ours-ptg")) == 0
    said = capsys.readouterr().err
    assert "warning: no perceptual loss" in said and "warning: no frame is labelled" in said
    assert "discriminator" in last_line(clips)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--max-minutes", "nan"], 2),
        (["--set", "train.seed=-1"], 2),
        (["--crop", "1,2,3"], 2),
        (["--split", "test", "--data", "{clips}/none"], 6),
        (["-o", "{clips}/blob/0.png"], 7),
    ],
)
def test_mistakes_are_reported_with_a_hint(
    clips: Path, more: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.replace("{clips}", str(clips)) for word in more]
    assert main(words(clips, *given)) == code
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said and "defect" not in said
    assert not (clips.parent / "run").exists()


def test_one_picture_makes_no_pair(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for picture in sorted((clips / "blob").iterdir())[1:]:
        picture.unlink()
    assert main(words(clips)) == 6
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said
    assert not (clips.parent / "run").exists()


def test_a_closed_terminal_saves_and_says_so_by_the_exit_code(clips: Path) -> None:
    """Nothing can be printed after SIGHUP. (The other signals: test_loop.py and test_cli.py.)"""
    master, terminal = pty.openpty()
    command = words(clips, "--set", "train.max_steps=1000000")
    process = subprocess.Popen([sys.executable, "-m", "sonomime.cli", *command], stderr=terminal)
    os.close(terminal)
    with open(master, "rb") as stream:
        while b"step 1/" not in stream.readline():
            assert process.poll() is None
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 129
    run = clips.parent / "run"
    step = load_checkpoint(run / "checkpoint.pt").step
    assert step >= len((run / "log.jsonl").read_text().splitlines()) >= 1


def test_the_data_say_how_many_landmarks_there_are(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = clips.parent / "run", clips / "keypoints.csv"
    rows = "".join(f"blob,{i}.png,{name},9,9,1\n" for i in range(6) for name in ("neck", "apex"))
    table.write_text("video,frame,keypoint,x,y,visible\n" + rows)
    assert main(words(clips)) == 0
    found = load_checkpoint(run / "checkpoint.pt")
    assert found.config.model.landmarks.count == 2
    assert found.supervised_names == ["apex", "neck"]
    assert main(words(clips, "--resume", "--set", "train.max_steps=3")) == 0
    assert "resuming at step 2" in capsys.readouterr().err
    assert main(words(clips, "-o", str(run) + "2", "--set", "model.landmarks.count=3")) == 2
    assert "model.landmarks.count" in capsys.readouterr().err
    table.unlink()
    assert main(words(clips, "--resume", "--set", "train.max_steps=4")) == 2
    said = capsys.readouterr().err
    assert "labels nothing" in said and "apex, neck" in said  # not a setting that nobody gave
    # A run that begins without labels has no detector, and says so.
    assert main(words(clips, "-o", str(run) + "3", "--from", str(run / "checkpoint.pt"))) == 0
    assert "apex, neck" in capsys.readouterr().err
    assert load_checkpoint(Path(str(run) + "3") / "checkpoint.pt").supervised_names == []


LABELS = "video,frame,keypoint,x,y,visible\n"


def test_labels_that_cannot_be_right_stop_a_run_before_it_begins(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, table = clips.parent / "run", clips / "keypoints.csv"
    for row, named in (
        ("blob,0.png,neck,9000,9,1", "frame 0.png of"),
        ("blob,7.png,neck,9,9,1", "7.png"),
        ("blob,0.png,neck,9,9,1\nblob,0.png,neck,9,9,1", "csv:3"),
    ):
        table.write_text(f"{LABELS}{row}\n")
        assert main(words(clips)) == 6
        assert named in capsys.readouterr().err
    table.unlink()
    (clips / "clips.csv").write_text(
        "clip,subject,group,split,crop\nblob,s,g,train,\nother,s,g,test,\n"
    )
    shutil.copytree(clips / "blob", clips / "other")
    assert main(words(clips)) == 6
    assert "'s'" in capsys.readouterr().err
    assert not run.exists()


def test_names_that_only_another_split_has(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(clips / "blob", clips / "other")
    (clips / "clips.csv").write_text(
        "clip,subject,group,split,crop\nblob,s,g,train,\nother,t,g,test,\n"
    )
    (clips / "keypoints.csv").write_text(LABELS + "blob,0.png,neck,9,9,1\nother,0.png,apex,9,9,1\n")
    assert main(words(clips)) == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "has the labels" in line)
    assert "apex" in said and "neck" not in said


def test_names_that_the_model_does_not_know(
    clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip of the pen in the labels is listed, with counts, and what may be meant."""
    run, table = clips.parent / "run", clips / "keypoints.csv"

    def label(*names: str) -> None:
        rows = [f"blob,{i}.png,{name},9,9,1\n" for i in range(6) for name in names]
        table.write_text(LABELS + "".join(rows))

    label("neck", "apex")
    assert main(words(clips)) == 0
    label("nack", "apex")
    start = ["-o", str(run) + "2", "--from", str(run / "checkpoint.pt")]
    for more in (["--resume", "--set", "train.max_steps=3"], start):
        assert main(words(clips, *more)) == 2
        said = capsys.readouterr().err
        assert "nack (6)" in said and "'neck'" in said
    label("cyst", "apex")  # another one: learned from the beginning
    assert main(words(clips, *start)) == 0
    assert "begins untrained" in capsys.readouterr().err
    assert main(words(clips, "--resume", "--set", "train.max_steps=3")) == 2


def test_a_share_of_the_labels(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"blob,{i}.png,{name},9,9,1\n" for i in range(6) for name in ("neck", "apex")]
    (clips / "keypoints.csv").write_text(LABELS + "".join(rows))
    for share, count in ((0, 0), (0.5, 3)):
        run = Path(f"{clips.parent / 'run'}{share}")
        assert main(words(clips, "-o", str(run), "--set", f"data.label_share={share}")) == 0
        assert f"{count} of 6" in capsys.readouterr().err
        found = load_checkpoint(run / "checkpoint.pt")
        assert found.config.model.landmarks.count == 2
        assert found.supervised_names == ["apex", "neck"]


def test_a_reader_of_the_log_that_leaves_does_not_end_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `| tee` does, which Ctrl-C ends too: what was learned is still saved."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", Gone())
    commands._say("a line")
    assert not isinstance(sys.stderr, Gone)
