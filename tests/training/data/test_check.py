"""What `sonomime data check` finds in made clips with one fault each."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.runtime.media.frames import Crop
from sonomime.training.data import check as module
from sonomime.training.data.check import check
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips

from .clips import write_folder, write_table, write_video

W, H, STEP = 96, 72, 2


def tissue(count: int = 5, seed: int = 0) -> np.ndarray:
    """Smooth texture that moves to the left by STEP pixels a frame, (count, H, W)."""
    noise = np.random.default_rng(seed).standard_normal((H, W + STEP * count))
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 120, cv2.NORM_MINMAX)
    return np.stack([wide[:, STEP * t : STEP * t + W] for t in range(count)]).astype(np.uint8)


def named(images: np.ndarray, y: int = 12) -> np.ndarray:
    for image in images:
        cv2.putText(image, "DOE 1970", (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.35, 255, 1)
    return images


def broken(path: Path) -> None:
    write_folder(path, tissue())
    (path / "f3.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def wrong(path: Path) -> None:
    path.write_bytes(b"nothing")


Make = Callable[[Path], object]
CASES: dict[str, tuple[str, Make, str, list[str], str, set[str]]] = {
    # name: (file, maker, crop, labels, state, kinds of problems)
    "sound": ("a.mkv", lambda p: write_video(p, tissue()), "", ["0,k,3,4,1"], "ok", set()),
    "still": ("a.mkv", lambda p: write_video(p, tissue(1)[[0, 0, 0]]), "", [], "ok", {"still"}),
    "flat": ("a.mkv", lambda p: write_video(p, 0 * tissue()), "", [], "ok",
             {"still", "flat", "note"}),
    "text": ("a.mkv", lambda p: write_video(p, named(tissue())), "", [], "ok", {"text"}),
    "cropped": ("a.mkv", lambda p: write_video(p, named(tissue())), '"0,24,96,48"', [], "ok",
                set()),
    "damaged": ("a", broken, "", [], "damaged", {"damage"}),
    "unread": ("a.mp4", wrong, "", [], "unread", {"unread"}),
    "crop": ("a.mkv", lambda p: write_video(p, tissue()), '"0,0,97,9"', [], "unread", {"unread"}),
    "reader": ("a.nii", wrong, "", [], "no reader", {"no reader"}),
    "outside": ("a.mkv", lambda p: write_video(p, tissue()), "", ["0,k,96,4,1"], "ok", {"label"}),
    "crop out": ("a.mkv", lambda p: write_video(p, tissue()), '"0,0,96,48"', ["4,k,3,48,1"], "ok",
                 {"label"}),
    "hidden": ("a.mkv", lambda p: write_video(p, tissue()), "", ["0,k,,,0"], "ok", set()),
    "beyond": ("a.mkv", lambda p: write_video(p, tissue()), "", ["5,k,3,4,1"], "ok", {"label"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_fault_is_found(name: str, tmp_path: Path) -> None:
    file, make, crop, labels, state, kinds = CASES[name]
    write_video(tmp_path / "other.mkv", tissue(seed=9))
    make(tmp_path / file)
    write_table(tmp_path / "clips.csv", "other.mkv,s,g,test,", f"{file},t,g,test,{crop}")
    if labels:
        write_table(tmp_path / "keypoints.csv", *(f"{file},{label}" for label in labels))
    done = check([tmp_path])
    assert {clip.name: clip.state for clip in done.clips} == {"other.mkv": "ok", file: state}
    assert {problem.kind for problem in done.problems} == kinds
    assert {problem.clip for problem in done.problems} <= {file}
    assert [clip.labelled for clip in done.clips if clip.name == file] == [len(labels)]


def test_what_is_said_of_a_clip(tmp_path: Path) -> None:
    images = named(tissue(), H - 8)[[0, 0, 1, 2, 3, 3, 4]]
    write_video(tmp_path / "a.mkv", images)
    write_table(tmp_path / "clips.csv", 'a.mkv,s,g,train,"8,0,80,56"')
    done = check([tmp_path])
    (one,) = done.clips
    assert done.problems == [] and done.totals == [("train", "g", 1, 1, 7, 5)]
    (clip,) = find_clips([tmp_path]).clips
    assert (one.frames, one.distinct) == (7, len(load_clip(clip, 64, 1))) == (7, 5)
    assert (one.fps, one.size, one.crop) == (25, (W, H), Crop(8, 0, 80, 56))
    assert one.seconds == pytest.approx(6 / 25, abs=2e-3)
    assert one.motion == pytest.approx(100 * 4 * STEP / 80, rel=0.2)
    ((x, y, w, h),) = one.text_outside
    assert one.text == [] and 2 <= x <= 6 and 36 <= w <= 44 and y > H - 20 and y + h < H - 4


def test_what_clips_have_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same frames in another kind of file; a subject in two splits, of two folders."""
    write_video(tmp_path / "one" / "a.mkv", tissue())
    write_folder(tmp_path / "two" / "b", tissue())
    write_table(tmp_path / "one" / "clips.csv", "a.mkv,s,g,train,")
    write_table(tmp_path / "two" / "clips.csv", "b,s,g,test,")
    done = check([tmp_path / "one", tmp_path / "two"])
    assert sorted((p.kind, p.clip) for p in done.problems if p.kind != "note") == [
        ("folder", ""), ("same", "b"),
    ]  # fmt: skip
    assert [total.split for total in done.totals] == ["test", "train"]
    opened = module.open_source

    def of_a_person(*words: Any, **options: Any) -> Any:
        source = opened(*words, **options)
        source.facts.burned_in = True
        return source

    monkeypatch.setattr(module, "open_source", of_a_person)
    assert "burned in" in {problem.kind for problem in check([tmp_path / "one"]).problems}


def test_a_bare_folder_with_a_link_to_nowhere(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", tissue())
    (tmp_path / "b.mkv").symlink_to(tmp_path / "nowhere")
    done = check([tmp_path], Crop(0, 0, 40, 30))
    assert [(clip.state, clip.crop) for clip in done.clips] == [
        ("ok", Crop(0, 0, 40, 30)), ("unread", None),
    ]  # fmt: skip
    assert [(p.kind, p.clip) for p in done.problems] == [("folder", ""), ("unread", "b.mkv")]


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, sheet = tmp_path / "data", tmp_path / "sheet.png"
    write_video(data / "a.mkv", tissue())
    write_table(data / "clips.csv", 'a.mkv,s,g,train,"8,0,80,56"')
    assert main(["data", "check", str(data), "--strict", "-o", str(sheet)]) == 0
    assert "a.mkv" in capsys.readouterr().out
    picture = cv2.imread(str(sheet)).astype(int)
    yellow = np.argwhere((picture[..., 2] - picture[..., 0]) > 200)
    scale = module._SIDE / W  # the crop's frame, below a line of text
    assert np.abs(np.ptp(yellow, axis=0) - [55 * scale, 79 * scale]).max() <= scale

    wrong(data / "b.mp4")
    write_table(data / "clips.csv", "a.mkv,s,g,train,", "b.mp4,t,g,test,")
    assert main(["data", "check", str(data), "--json", "-o", str(sheet)]) == 8
    record = json.loads(capsys.readouterr().out)
    assert [clip["state"] for clip in record["clips"]] == ["ok", "unread"]
    assert [problem["kind"] for problem in record["problems"]] == ["unread"]
    assert [total["clips"] for total in record["totals"]] == [1, 1]
    monkeypatch.setattr(module, "MOST_SHOWN", 1)
    assert main(["data", "check", str(data), "--strict", "-o", str(sheet)]) == 6
    assert cv2.imread(str(sheet)).shape[1] < picture.shape[1] + 8  # one cell alone
    assert main(["data", "check", str(data), "-o", "sheet.jpg"]) == 2


def test_it_needs_no_torch(dataset: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from sonomime.cli import main; "
    code += f"sys.exit(main(['data', 'check', {str(dataset)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=sys.prefix)
    assert done.returncode in (0, 8), done.stderr
