"""What `sonomime annotations check` finds, and that points are drawn where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_files import SIZE

from sonomime.cli import main
from sonomime.runtime.support.errors import InputError
from sonomime.training.annotations import checking, drawing
from sonomime.training.annotations.checking import check_labels
from sonomime.training.annotations.drawing import Marker
from sonomime.training.annotations.jumps import find_jumps

HEADER = "video,frame,keypoint,x,y,visible"


def label(data: Path, *rows: str) -> Path:
    (data / "keypoints.csv").write_text("\n".join([HEADER, *rows, ""]))
    return data


def test_counts_and_faults_of_each_clip(data: Path) -> None:
    rows = [f"a.mkv,{t},neck,{5 + t},6,1" for t in range(4)] + ["a.mkv,0,apex,20,6,1"]
    rows += ["a.mkv,7,neck,5,6,1", "b,0.png,neck,50,6,1", "b,1.png,neck,,,0", "b,2.png,nekc,1,1,1"]
    done = check_labels([label(data, *rows, *(f"c,c{t}.png,neck,5,6,1" for t in range(3)))])
    a, b, c = done.clips
    assert (a.frames, a.labelled, a.points, a.outside) == (4, 5, {"neck": 5, "apex": 1}, 0)
    assert (b.labelled, b.hidden, b.outside, b.state, c.points) == (3, 1, 1, "ok", {"neck": 3})
    assert done.names == {"neck": 10, "apex": 1, "nekc": 1}
    found = sorted((problem.kind, problem.clip) for problem in done.problems)
    assert found == [("folder", ""), ("label", "a.mkv"), ("label", "b"), ("name", "")]
    assert "nekc" in next(p.text for p in done.problems if p.kind == "name")
    cropped = check_labels([data], crop=checking.Crop(0, 0, 12, 32)).clips[0]
    assert (cropped.outside, cropped.cropped) == (0, 1)


def test_a_point_that_jumps_is_a_suspect_a_frame_that_moves_is_not() -> None:
    rng = np.random.default_rng(0)
    rest = {name: rng.uniform(20, 200, 2) for name in "abcd"}
    shift = {t: np.array([t, 0.0]) for t in range(12)} | {9: np.array([60.0, 40])}  # the probe
    labels = {
        3 * t: {name: tuple(at + shift[t] + rng.normal(0, 1, 2)) for name, at in rest.items()}
        for t in range(12)
    }
    assert find_jumps({"clip": labels}) == []
    labels[15]["b"] = tuple(np.add(labels[15]["b"], (0, 70)))
    labels[15]["c"] = (float("nan"), float("nan"))
    found = find_jumps({"other": {}, "clip": labels})
    assert [(j.clip, j.name, j.before, j.frame) for j in found] == [
        ("clip", "b", 12, 15), ("clip", "b", 15, 18),
    ]  # fmt: skip
    assert all(60 < jump.pixels < 80 for jump in found)
    assert find_jumps({"clip": {0: {"a": (1, 1)}, 5: {"a": (1, 1)}}}) == []


def test_a_point_is_drawn_on_its_place() -> None:
    marker = Marker({"n": 1, "m": 1, "gone": 1})
    image = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    places = {"n": (30.0, 20.0), "m": (float("nan"),) * 2, "gone": (90.0, 5.0)}
    plain = marker.draw(image, "", {}, None, ())
    made = marker.draw(image, "", places, None, ())
    ringed = marker.draw(image, "", places, None, {"n"})
    scale = drawing._SIDE / SIZE[0]
    y, x = (made != plain).any(-1).nonzero()
    at = np.array([30.5, 20.5]) * scale + (0, made.shape[0] - SIZE[1] * scale)
    assert np.abs(np.stack([x, y], -1) - at).sum(1).min() < 4
    assert (made[round(at[1]), round(at[0])] == marker._colours["n"]).all()
    assert (ringed[..., 0] > made[..., 0]).any()
    assert len({*marker._colours.values()}) == 3


def test_a_clip_that_cannot_be_read_and_one_without_a_reader(data: Path) -> None:
    (data / "x.mp4").write_bytes(b"nothing")
    (data / "y.nii").write_bytes(b"nothing")
    done = check_labels([label(data, "x.mp4,0,neck,1,1,1", "y.nii,0,neck,1,1,1")])
    assert [clip.state for clip in done.clips] == ["unread"]
    kinds = {problem.kind for problem in done.problems}
    assert kinds == {"folder", "no reader", "unread"} and done.unlabelled == 3
    with pytest.raises(InputError):
        check_labels([label(data)])


def test_the_command(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"{clip},{frame},neck,5,6,1" for clip, frame in
            (("a.mkv", "0"), ("a.mkv", "3"), ("b", "1.png"))]  # fmt: skip
    label(data, *rows)
    (data / "clips.csv").write_text(
        "clip,subject,group,split,crop\na.mkv,s,g,train,\nb,t,g,val,\nc,u,g,test,\n"
    )
    sheet = data.parent / "sheet.png"
    words = ["annotations", "check", str(data), "-o", str(sheet)]
    assert main([*words, "--strict"]) == 0
    said = capsys.readouterr()
    assert "neck (3)" in said.out and said.err == ""
    whole = cv2.imread(str(sheet)).shape
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [clip["labelled"] for clip in record["clips"]] == [2, 1]
    assert (record["shown"], record["unlabelled"], record["problems"]) == (3, 1, [])
    monkeypatch.setattr(checking, "MOST_SHOWN", 1)
    assert main(words) == 0
    assert "1 of 3" in capsys.readouterr().err
    assert cv2.imread(str(sheet)).shape[1] < whole[1]
    label(data, *rows, "a.mkv,1,neck,99,1,1")
    assert main([*words, "--strict"]) == 6
    (data / "b" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(words) == 8
    assert main([*words[:-1], "sheet.jpg"]) == 2
