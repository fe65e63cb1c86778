"""The verbs' options: what of them reaches the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import pytest
from toy_bundle import blob

from sonomime.cli import main


@pytest.fixture
def words(tmp_path: Path, displacement_toy: Path) -> list[str]:
    """`animate` with the toy that moves by displacements."""
    (tmp_path / "driving").mkdir()
    cv2.imwrite(str(tmp_path / "still.png"), blob(64, 0.3, 0))
    for i in range(4):
        cv2.imwrite(str(tmp_path / "driving" / f"{i}.png"), blob(64, -0.3 + i / 10, 0))
    (tmp_path / "marks.csv").write_text("image,keypoint,x,y\nsource,a,1,2\nreference,a,3,4\n")
    (tmp_path / "outside.csv").write_text("image,keypoint,x,y\nsource,a,1,2\nreference,a,64,4\n")
    (tmp_path / "unequal.csv").write_text("image,keypoint,x,y\nsource,a,1,2\nreference,b,3,4\n")
    files = [tmp_path / "still.png", tmp_path / "driving", "-o", tmp_path / "out.mp4"]
    return [str(word) for word in ("animate", "--bundle", displacement_toy, *files)]


@pytest.mark.parametrize(
    ("choice", "names"), [("auto", "left, right"), ("none", ""), ("{tmp}/marks.csv", "a")]
)
def test_what_a_pair_was_aligned_by(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, names: str
) -> None:
    options = ["--landmarks", choice.format(tmp=tmp_path), "--reference", "1", "--json"]
    options += ["--size", "model"]
    options += ["--debug-picture", str(tmp_path / "debug.png")]
    assert main([*words, *options]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    alignment = result["alignment"]
    assert result["size"] == [64, 64]
    assert alignment in said.err.splitlines() and names in alignment
    assert (tmp_path / "debug.png").is_file()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--landmarks", "{tmp}/none.csv"], 6),
        (["--landmarks", "{tmp}/still.png"], 6),
        (["--landmarks", "{tmp}/outside.csv"], 6),
        (["--landmarks", "{tmp}/unequal.csv"], 6),
        (["--landmarks", "{tmp}/marks.csv", "--reference", "best"], 2),
        (["--debug-picture", "-"], 2),
        (["--debug-picture", "{tmp}/still.png"], 7),
        (["--reference", "4"], 6),
        (["--reference", "-1"], 2),
        (["--size", "64"], 2),
        (["--motion", "absolute"], 2),
        (["--scale", "hull"], 2),
        (["--shading", "off"], 2),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[Any],
    code: int,
) -> None:  # fmt: skip
    assert main([*words, *(option.format(tmp=tmp_path) for option in options)]) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("error: ") and lines[-1].startswith("hint: ")
    assert not (tmp_path / "out.mp4").exists()
