"""What a phantom's folder says, and every way in which it can be wrong."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.support.errors import InputError
from sonomime.training.data.dataset import find_clips
from sonomime.training.evaluation.ground_truth.readers import Pair, read_pair, read_pairs

from ..phantoms import (
    COUNT,
    MARKS,
    NAMES,
    PAIRS,
    SIZE,
    displacement,
    pair_data,
    render,
    sector,
    write_clip,
)

Break = Callable[[Path], None]


@pytest.fixture
def folder(phantom: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(phantom, tmp_path / "phantom"))


def pairs_of(folder: Path, split: str | None = None) -> list[Pair]:
    return read_pairs(folder, find_clips([folder]).clips, split)


def test_pairs_name_clips_and_truth(phantom: Path) -> None:
    pairs = pairs_of(phantom)
    assert [(p.source.subject, p.driving.subject) for p in pairs] == PAIRS
    assert [p.split for p in pairs_of(phantom, "test")] == ["test"] * 3
    with pytest.raises(InputError) as caught:
        pairs_of(phantom, "validation")
    assert "'validation'" in caught.value.message and "test, train" in caught.value.hint


def test_a_pair_is_read_frame_by_frame(phantom: Path) -> None:
    data = pair_data(phantom, 0)
    assert np.array_equal(data.source, render(0, displacement(0))[0])
    assert np.array_equal(data.driving, render(1, displacement(1)))
    assert np.array_equal(data.truth, render(0, displacement(1)))
    assert np.array_equal(data.other, render(100, displacement(1)))
    assert np.array_equal(data.field.displacement, displacement(1))
    assert np.array_equal(data.field.sector, sector())
    assert data.names == NAMES and data.keypoints.shape == (COUNT, 2, 2)
    assert np.allclose(data.start, MARKS)


def test_a_smaller_model_sees_smaller_truth(phantom: Path) -> None:
    data = read_pair(pairs_of(phantom)[0], SIZE // 2, 3)
    assert data.truth.shape == (COUNT, SIZE // 2, SIZE // 2, 3)
    assert np.allclose(data.start, (MARKS + 0.5) / 2 - 0.5)
    field = data.field.displacement[4]
    assert np.allclose(field, displacement(1)[4][::2, ::2] / 2, atol=0.1)


def test_a_field_without_sector_holds_everywhere_and_repeated_frames_stay_in_step(
    folder: Path,
) -> None:
    frames, field = render(1, displacement(1)), displacement(1)
    frames[3], field[3] = frames[2], field[2]
    write_clip(folder / "clips" / "s1.mkv", frames)
    with np.load(folder / ARRAYS) as archive:
        arrays = {**archive, "displacement": field}
    del arrays["sector"]
    np.savez(folder / ARRAYS, **arrays)
    data = pair_data(folder)
    assert np.array_equal(data.driving, frames) and data.field.sector.all()


def _line(text: str) -> Break:
    def change(folder: Path) -> None:
        table = folder / "truth" / "pairs.csv"
        table.write_text("pair,source,driving,split\n" + text)

    return change


def _arrays(**changes: np.ndarray) -> Break:
    def change(folder: Path) -> None:
        with np.load(folder / ARRAYS) as archive:
            arrays = {**archive, **changes}
        np.savez(folder / ARRAYS, **arrays)

    return change


def _keypoints(data: bytes) -> Break:
    """Other bytes for that array; none: without it."""

    def change(folder: Path) -> None:
        with zipfile.ZipFile(folder / ARRAYS) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        parts["keypoints.npy"] = data
        with zipfile.ZipFile(folder / ARRAYS, "w") as archive:
            for name, part in parts.items():
                if part:
                    archive.writestr(name, part)

    return change


def _header(text: bytes) -> bytes:
    """An array of version 1 with this header."""
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(64)


def _video(name: str, count: int = COUNT, size: int = SIZE) -> Break:
    return lambda f: write_clip(f / "truth" / name, np.zeros((count, size, size), np.uint8))


GOOD = "s0__s1,clips/s0.mkv,clips/s1.mkv,test\n"
HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"
ARRAYS = "truth/s0__s1.npz"
WRONG: list[tuple[Break, str]] = [
    (lambda f: shutil.rmtree(f / "truth"), "truth/pairs.csv"),
    (_line(""), "truth/pairs.csv"),
    (_line("s0__s1,clips/s0.mkv,clips/s9.mkv,test\n"), "clips/s9.mkv"),
    (_line("a/b,clips/s0.mkv,clips/s1.mkv,test\n"), "a/b"),
    (_line(GOOD + GOOD), "pairs.csv:3"),
    (_line(GOOD.replace("s0__s1", "s0__s9")), "s0__s9.mkv"),
    (lambda f: (f / "truth" / "s0__s1.other.mkv").unlink(), "s0__s1.other.mkv"),
    (lambda f: (f / "truth" / "s0__s1.mkv").write_text("no video"), "s0__s1.mkv"),
    (lambda f: (f / ARRAYS).write_bytes((f / ARRAYS).read_bytes()[:2000]), ARRAYS),
    (_arrays(displacement=displacement(1, COUNT - 1)), "displacement"),
    (_arrays(sector=np.zeros((SIZE, SIZE), np.bool_)), "sector"),
    (_arrays(keypoints=np.zeros((COUNT, 3, 2), np.float32)), "keypoints"),
    (_arrays(keypoints=np.zeros((COUNT, 2, 2), np.int32)), "keypoints"),
    (_arrays(keypoint_names=np.array(["a", None], object)), ARRAYS),
    (_arrays(keypoint_names=np.array([1.0, 2.0])), "keypoint_names"),
    (_keypoints(b""), "keypoints"),
    (_keypoints(_header(HUGE)), ARRAYS),
    (_keypoints(_header(b"{[]: 1}\n")), ARRAYS),
    (_keypoints(_header(b"(" * 5000)), ARRAYS),
    (_keypoints(_header(b"\xff\0")), ARRAYS),
    (_keypoints(bytes((1 << 26) + 1)), "keypoints"),
    (_video("s0__s1.mkv", COUNT - 2), "s0__s1.mkv"),
    (_video("s0__s1.mkv", COUNT, 64), "s0__s1.mkv"),
]


@pytest.mark.parametrize(("change", "named"), WRONG)
def test_what_is_wrong_is_named_with_a_cure(folder: Path, change: Break, named: str) -> None:
    change(folder)
    with pytest.raises(InputError) as caught:
        pair_data(folder, 0)
    assert named in caught.value.message and caught.value.hint
    assert str(folder) in caught.value.message
