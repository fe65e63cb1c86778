"""Landmarks of a pair: read from a file or found by the model, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_bundle import blob
from toy_displacement import CELLS, make_displacement_toy

from sonomime.runtime import Animator
from sonomime.runtime.landmarks import Picture, align_pair, read_landmarks
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.session import own_places
from sonomime.runtime.support.errors import ConfigError, InputError

HEADER = "image,keypoint,x,y\n"
PAIR = "source,neck,20,30\nreference,neck,40,31.5\n"
SOURCE, REFERENCE = Picture(blob(64, 0.3, 0)), Picture(blob(80, -0.2, 0))


def write(folder: Path, text: str) -> Path:
    path = folder / "landmarks.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def animator(displacement_toy: Path) -> Any:
    with Animator.open(displacement_toy, "cpu", threads=1) as opened:
        opened.set_source(SOURCE.image)
        opened.set_reference(REFERENCE.image)
        yield opened


def test_a_file_names_each_landmark_in_both_pictures(tmp_path: Path) -> None:
    text = "x,y,keypoint,image\n1,2,b,reference\n3,4,a,source\n\n5,6.5,b,source\n-7,8,a,reference\n"
    both = read_landmarks(write(tmp_path, text))
    assert list(both["source"]) == list(both["reference"]) == ["a", "b"]
    assert both["source"]["b"][:2] == (5, 6.5) and both["reference"]["a"][:2] == (-7, 8)
    assert both["source"]["b"].where.endswith("landmarks.csv:5")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("image,keypoint,x,y,visible\n", [":1", "visible"]),
        (HEADER, []),
        ("", []),
        (HEADER + PAIR + "drving,neck,1,2\n", [":4", "drving"]),
        (HEADER + PAIR + "source,,1,2\n", [":4"]),
        (HEADER + PAIR + "source,a\x1b[2J,1,2\n", [":4", r"'a\x1b[2J'"]),
        (HEADER + PAIR + "source,edge,1,nan\n", [":4", "y"]),
        (HEADER + PAIR + "source,edge,one,2\n", [":4", "x", "one"]),
        (HEADER + PAIR + "source,neck,1,2\n", [":4", ":2", "neck"]),
        (HEADER + PAIR + "source,edge,1,2\nreference,rim,1,2\n", [":4", ":5", "edge", "rim"]),
        (HEADER + "source,neck,1\n", [":2"]),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, names: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_landmarks(write(tmp_path, text))
    assert "landmarks.csv" in caught.value.message and caught.value.hint
    assert [name for name in names if name not in caught.value.message] == []


def test_a_pair_is_aligned_by_a_file_in_pixels_before_any_crop(
    animator: Animator, tmp_path: Path
) -> None:
    path = write(tmp_path, HEADER + PAIR)
    whole = align_pair(animator, path, SOURCE, REFERENCE)
    assert whole.names == ("neck",) and whole.source.tolist() == [[20, 30]]
    moved = animator.read("alignment") - own_places(CELLS, CELLS)
    expected = (40.5 / 80 - 20.5 / 64) * 2, (32 / 80 - 30.5 / 64) * 2
    assert moved[0, 0, 0] == pytest.approx(expected, abs=1e-6)
    cut = Picture(SOURCE.image, Crop(15, 5, 64, 64)), Picture(REFERENCE.image, Crop(30, 1, 80, 80))
    cropped = align_pair(animator, path, *cut)
    assert cropped.source.tolist() == [[5, 25]] and cropped.reference.tolist() == [[10, 30.5]]


@pytest.mark.parametrize(
    ("row", "crop", "words"),
    [
        ("source,edge,64,3\nreference,edge,1,2\n", None, (":4", "'edge'", "64 x 64")),
        ("source,edge,1,2\nreference,edge,3,-1\n", None, (":5", "'edge'", "80 x 80")),
        ("", Crop(30, 0, 64, 64), ("'neck'", "30,0,64,64")),
    ],
)
def test_a_landmark_outside_of_its_picture(
    animator: Animator, tmp_path: Path, row: str, crop: Crop | None, words: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as caught:
        path = write(tmp_path, HEADER + PAIR + row)
        align_pair(animator, path, Picture(SOURCE.image, crop), REFERENCE)
    assert [word for word in words if word not in caught.value.message] == []


def test_the_model_finds_what_both_pictures_show(animator: Animator) -> None:
    found = align_pair(animator, "auto", SOURCE, REFERENCE)
    assert found.names == ("left", "right") and "left, right" in found.said
    moved = animator.read("alignment") - own_places(CELLS, CELLS)
    assert moved[..., 0] == pytest.approx(-0.5, abs=0.01)
    assert found.reference[0] == pytest.approx([(-0.4 + 1) * 40 - 0.5, 39.5], abs=1)


def test_what_is_not_sure_or_not_in_the_picture_does_not_align(animator: Animator) -> None:
    own = own_places(CELLS, CELLS)
    dark = Picture(SOURCE.image // 4)  # found with a probability of .3
    for reference in (dark, Picture(np.zeros((50, 60), np.uint8))):
        nothing = align_pair(animator, "auto", SOURCE, reference)
        assert nothing.names == () and nothing.said
        assert np.array_equal(animator.read("alignment"), own)
    # Of a tall picture the centre of brightness is inside, and what lies aside is in the black.
    tall = Picture(np.full((64, 6), 255, np.uint8))
    assert align_pair(animator, "auto", SOURCE, tall).names == ()


def test_none_and_models_without_a_detector(
    animator: Animator, toy_bundle: Path, tmp_path: Path
) -> None:
    asked = align_pair(animator, "none", SOURCE, REFERENCE)
    assert asked.names == () and asked.said
    path = write(tmp_path, HEADER + PAIR)
    assert align_pair(animator, "auto", SOURCE, None).names == ()
    with pytest.raises(InputError):
        align_pair(animator, path, SOURCE, None)
    with Animator.open(make_displacement_toy(tmp_path / "plain", landmarks=()), "cpu") as plain:
        plain.set_source(SOURCE.image)
        nothing = align_pair(plain, "auto", SOURCE, REFERENCE)
        assert nothing.names == () and "--landmarks" in nothing.said
        assert align_pair(plain, path, SOURCE, REFERENCE).names == ("neck",)
    with Animator.open(toy_bundle, "cpu") as keypoints:
        keypoints.set_source(SOURCE.image)
        assert align_pair(keypoints, "auto", SOURCE, None).said == ""
        with pytest.raises(ConfigError):
            align_pair(keypoints, path, SOURCE, None)
