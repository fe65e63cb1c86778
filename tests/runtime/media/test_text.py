"""Text that is burned in: found in made and in real clips; tissue and scales are none."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.runtime.media.contact_sheet import Spread
from sonomime.runtime.media.frames import Image, png_bytes
from sonomime.runtime.media.text import find_text
from sonomime.runtime.readers.inspection import inspect
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import AS_IS
from sonomime.runtime.support.errors import UnsupportedFormat

W, H = 200, 120


def tissue(count: int = 6, moves: bool = True) -> list[Image]:
    noise = np.random.default_rng(0).standard_normal((H, W + 4 * count))
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 150, cv2.NORM_MINMAX)
    return [wide[:, 4 * t * moves :][:, :W].astype(np.uint8) for t in range(count)]


def write(image: Image, scale: float, level: int) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(image, "DOE, JANE", (20, 60), font, scale, level, 1, cv2.LINE_AA)


@pytest.mark.parametrize("scale", [0.3, 0.4, 0.8])
@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("paper", [None, 0, 255])
def test_text_is_found(scale: float, moves: bool, paper: int | None) -> None:
    frames = tissue(moves=moves)
    for frame in frames:
        if paper is not None:
            frame[30:70] = paper
        write(frame, scale, 0 if paper else 255)
    blank = np.zeros((H, W), np.uint8)
    write(blank, scale, 255)
    left, top, w, h = cv2.boundingRect(blank)
    found = [box for box in find_text(frames) if top <= box.y + box.h / 2 <= top + h]
    # Fonts differ between versions of OpenCV: a word may stand alone.
    ends = min(box.x for box in found), max(box.x + box.w for box in found)
    assert np.allclose(ends, [left, left + w], 0, w / 6)
    for box in found:
        assert np.allclose([box.y, box.y + box.h], [top, top + h], 0, 4)


@pytest.mark.parametrize("what", ["tissue", "ruler", "line", "moving text", "black"])
def test_what_is_no_text(what: str) -> None:
    frames = tissue()
    for place, frame in enumerate(frames):
        if what == "ruler":
            frame[100:] = 0
            frame[104:114, 10:190:8] = 255
        elif what == "line":
            cv2.line(frame, (10, 50), (190, 58), 255, 2)
        elif what == "moving text":
            write(frame[12 * place :], 0.4, 255)
        elif what == "black":
            frame[:] = 0
    assert find_text(frames) == []


def test_real_clips(shared_data: Path) -> None:
    with (shared_data / "test" / "MANIFEST.csv").open(encoding="utf-8") as table:
        for row in list(csv.DictReader(table))[::3]:
            spread = Spread[Image](8)
            try:
                for frame in open_source(shared_data / "test" / row["local"]).frames(whole=True):
                    spread.add(frame.image)
            except UnsupportedFormat:
                continue
            assert 8 <= len(spread.kept) < 16
            has = row["burned_in"].startswith("UI")
            assert bool(find_text(spread.kept)) == has, row["local"]


def test_inspect_says_where(tmp_path: Path) -> None:
    frames = tissue()
    for place, frame in enumerate(frames):
        write(frame, 0.4, 255)
        (tmp_path / f"{place}.png").write_bytes(png_bytes(frame))
    found = inspect(tmp_path, AS_IS, tmp_path / "sheet" / "s.png")
    assert found.text == find_text(frames) and len(found.text) == 1
    assert "1 place" in found.lines()[-1]
    picture = cv2.imread(str(tmp_path / "sheet" / "s.png")).astype(int)
    assert ((picture[..., 0] - picture[..., 1]) > 200).sum() > 6 * 50  # magenta, in every cell
