"""A small study: three arms of four cases, of different sizes, lengths and formats."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.media.mark import metadata
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.training.study.make import make

CASES = ("a", "b", "c", "d")


def write(path: Path, size: tuple[int, int] = (96, 64), frames: int = 6, fps: int = 20) -> None:
    """A clip of one grey level that rises frame by frame, with a bright square."""
    with open_sink(path, size, 1, fps, metadata()) as sink:
        for number in range(frames):
            image = np.full(size[::-1], 40 + 8 * number, np.uint8)
            image[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 200
            sink.write(image)


@pytest.fixture(scope="session")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("arms")
    for number, case in enumerate(CASES):
        write(root / "real" / f"{case}.mkv", (192, 128), 9)
        write(root / "fomm" / f"{case}.mp4", (96, 64), 6 + number)
        write(root / "ours" / case, (192, 128), 12)
    return {arm: root / arm for arm in ("real", "fomm", "ours")}


@pytest.fixture(scope="session")
def made(arms: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "study"
    make(folder, arms, print, raters=3, repeats=3, seed=5, real_or_fake=True)
    return folder


@pytest.fixture
def study(made: Path, tmp_path: Path) -> Path:
    """A copy of it, that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture
def said() -> tuple[list[str], Callable[[str], object]]:
    lines: list[str] = []
    return lines, lines.append
