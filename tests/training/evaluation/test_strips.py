"""The pictures: what is shown where, and files that appear whole."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.runtime.support.errors import OutputError
from sonomime.training.evaluation import reconstruction as tasks
from sonomime.training.evaluation import strips
from sonomime.training.models.geometry import make_grid

from .fakes import Copy, Fake, candidate_of, drive


@pytest.fixture(scope="module")
def judged() -> tuple[tasks.ClipResult, tasks.Pictures]:
    return tasks.reconstruct(candidate_of(Copy()), drive(count=5))


def test_a_strip_shows_source_driving_prediction_and_no_difference_for_a_copy(
    judged: tuple[tasks.ClipResult, tasks.Pictures],
) -> None:
    result, pictures = judged
    strip = strips.clip_strip(result, pictures, "half_pixel")
    assert strip.dtype == np.uint8 and strip.shape[2] == 3
    assert strip.shape[1] == (1 + 4) * (strips.TILE + 8)

    def tile(row: int, column: int) -> np.ndarray:
        top = 20 + row * (strips.TILE + 24) + 20
        left = column * (strips.TILE + 8) + 4
        return strip[top : top + strips.TILE, left : left + strips.TILE]

    for column in range(1, 5):
        assert np.array_equal(tile(0, column), tile(1, column))
        assert not tile(2, column).any()
    assert not np.array_equal(tile(0, 0), tile(0, 1))


def test_a_second_block_shows_the_other_subject(
    judged: tuple[tasks.ClipResult, tasks.Pictures],
) -> None:
    from dataclasses import replace

    result, pictures = judged
    alone = strips.clip_strip(result, pictures, "half_pixel")
    leakage, other = tasks.leakage(candidate_of(Fake()), drive(), drive("b", "b", seed=3))
    both = strips.clip_strip(
        replace(result, driver="b", leakage=leakage),
        tasks.Pictures(pictures.source, pictures.own, other),
        "half_pixel",
    )
    assert both.shape[0] > alone.shape[0]


@pytest.mark.parametrize("geometry", ["half_pixel", "fomm"])
def test_the_deformation_of_nothing_is_dark_and_of_a_shift_bright(geometry: str) -> None:
    identity = make_grid(16, 16, geometry).numpy()
    still = strips.show_deformation(identity, geometry)
    moved = strips.show_deformation(identity + np.float32(0.4), geometry)
    assert still.shape == (strips.TILE, strips.TILE, 3)
    assert np.median(moved) > 2 * np.median(still)


def test_the_overview_takes_any_number_of_clips_and_colour(
    judged: tuple[tasks.ClipResult, tasks.Pictures],
) -> None:
    result, pictures = judged
    row = strips.clip_row(result, pictures)
    one, three = strips.overview([row]), strips.overview([row] * 3)
    assert three.shape[0] > one.shape[0] and three.shape[1] > one.shape[1]
    colour = np.repeat(pictures.source[..., None], 3, axis=2)
    samples = [sample._replace(prediction=colour) for sample in pictures.own]
    assert strips.clip_row(result, tasks.Pictures(colour, samples)).shape == row.shape


def test_names_of_files_are_plain() -> None:
    assert strips.strip_name(4, "clips/a b.mp4") == "004_a_b.mp4.png"
    assert strips.strip_name(0, "/data/frames/") == "000_frames.png"
    assert "/" not in strips.strip_name(0, "..\\x/../é:y.mov")


def test_a_strip_is_a_png_that_says_what_was_drawn(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    strips.write_strip(tmp_path / "s.png", picture)
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "s.png")), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read, picture)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        strips.write_strip(tmp_path / "file" / "s.png", picture)
