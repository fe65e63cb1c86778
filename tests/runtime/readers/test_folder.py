"""Which files of a folder are frames, at which times, and what is said of the rest."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_files import noise
from PIL import Image as PillowImage

from sonomime.runtime.readers.folder import series_of
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import InputError, UnsupportedFormat


def put(folder: Path, *names: str, size: tuple[int, int] = (24, 32)) -> None:
    for i, name in enumerate(names):
        PillowImage.fromarray(noise(*size, seed=i)).save(folder / name)


@pytest.mark.parametrize(
    ("names", "frames", "notes"),
    [
        (["f2.png", "f10.png", "f1.png"], ["f1.png", "f2.png", "f10.png"], 1),  # 1, 2, 10: a gap
        (["us_1.png", "us_2.png", "mask1.png", "mask2.png"], ["us_1.png", "us_2.png"], 1),
        (["a1_1.png", "a1_2.png", "a1_3.png", "a2_1.png"], ["a1_1.png", "a1_2.png", "a1_3.png"], 1),
        (["b.png", "a.png"], ["a.png", "b.png"], 1),  # the alphabet is all there is
        (["f1.png", "f01.png", "f2.png"], ["f01.png", "f1.png", "f2.png"], 1),
        (["s1_0.5.png", "s1_1.0.png", "s1_1.5.png"], ["s1_0.5.png", "s1_1.0.png", "s1_1.5.png"], 1),
    ],
)
def test_one_series_is_read(
    tmp_path: Path, names: list[str], frames: list[str], notes: int
) -> None:
    put(tmp_path, *names)
    series = series_of(tmp_path)
    assert [file.name for file in series.files] == frames
    assert len(series.notes) == notes, series.notes


def test_gaps_stay_gaps_at_any_rate(tmp_path: Path) -> None:
    put(tmp_path, "f7.png", "f8.png", "f12.png")
    asked = Reading(fps=Fraction(10))
    for how, rate, said in ((Reading(), 30, "assumed"), (asked, 10, "as asked")):
        source = open_source(tmp_path, how)
        assert (source.facts.rate, source.facts.fps) == (said, rate)
        times = [frame.timestamp for frame in source]
        assert times == pytest.approx([0, 1 / rate, 5 / rate])
    (tmp_path / "frames.csv").write_text("frame,seconds\nf7.png,3\nf8.png,4\nf12.png,4.5\n")
    source = open_source(tmp_path)
    assert [frame.timestamp for frame in source] == pytest.approx([0, 1, 1.5])
    assert source.fps == pytest.approx(2 / 1.5) and source.facts.notes == []
    for table in ("f7.png,0\nf9.png,1\n", "f7.png,1\nf8.png,1\n", "f7.png,0,04\n", "f7.png,x\n"):
        (tmp_path / "frames.csv").write_text(f"frame,seconds\n{table}")
        with pytest.raises(InputError, match=r"frames\.csv:[23]"):
            open_source(tmp_path)


def test_what_else_lies_there_is_said_or_refused(tmp_path: Path) -> None:
    put(tmp_path, "preview.png")
    (tmp_path / "clip.mp4").write_bytes(b"a clip")
    with pytest.raises(InputError):
        open_source(tmp_path)
    put(tmp_path, "f1.png", "f2.png", "f3.png")
    put(tmp_path, "f4.png", size=(40, 40))
    notes = open_source(tmp_path).facts.notes
    for name in ("clip.mp4", "preview.png", "f4.png"):
        assert any(name in note for note in notes), name


def test_clear_places_and_pages_are_said_once(tmp_path: Path) -> None:
    clear = np.dstack([noise(24, 32), noise(24, 32, seed=1)])
    for i in range(4):
        PillowImage.fromarray(clear).save(tmp_path / f"f{i}.png")
    source = open_source(tmp_path, Reading(fps=Fraction(5)))
    assert len(list(source)) == 4 and len(source.facts.notes) == 1
    stacks = tmp_path / "stacks"
    stacks.mkdir()
    pages = [PillowImage.fromarray(noise(24, 32, seed=i)) for i in range(3)]
    for i in range(2):
        pages[0].save(stacks / f"s{i}.tif", save_all=True, append_images=pages[1:])
    assert any("pages" in note for note in open_source(stacks).facts.notes)
    stack = open_source(stacks / "s0.tif")
    assert (stack.count_hint, stack.facts.rate, len(stack.facts.notes)) == (3, "assumed", 1)


def test_a_folder_of_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(UnsupportedFormat):
        open_source(tmp_path)
