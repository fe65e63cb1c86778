"""What a phantom's folder says, and every way in which it can be wrong."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop, Letterbox
from sonomime.runtime.support.errors import InputError
from sonomime.training.data.dataset import find_clips
from sonomime.training.evaluation.ground_truth.readers import (
    Pair,
    read_field,
    read_pair,
    read_pairs,
)

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
    write_phantom,
)

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(made, tmp_path / "phantom"))


def pairs_of(folder: Path, split: str | None = None) -> list[Pair]:
    return read_pairs(folder, find_clips([folder]).clips, split)


def test_pairs_name_clips_and_truth(made: Path) -> None:
    pairs = pairs_of(made)
    assert [(p.source.subject, p.driving.subject) for p in pairs] == PAIRS
    assert [p.split for p in pairs_of(made, "test")] == ["test"] * 3
    assert [p.name for p in pairs_of(made, "train")] == ["s3__s3"]


def test_a_pair_is_read_frame_by_frame(made: Path) -> None:
    data = pair_data(made, 0)
    assert np.array_equal(data.source, render(0, displacement(0))[0])
    assert np.array_equal(data.driving, render(1, displacement(1)))
    assert np.array_equal(data.truth, render(0, displacement(1)))
    assert np.array_equal(data.other, render(100, displacement(1)))
    assert np.array_equal(data.field.displacement, displacement(1))
    assert np.array_equal(data.field.sector, sector())
    assert data.names == NAMES and data.keypoints.shape == (COUNT, 2, 2)
    assert np.allclose(data.start, MARKS)


def test_a_smaller_model_sees_smaller_truth(made: Path) -> None:
    data = read_pair(pairs_of(made)[0], SIZE // 2, 3)
    assert data.truth.shape == (COUNT, SIZE // 2, SIZE // 2, 3)
    assert np.allclose(data.start, (MARKS + 0.5) / 2 - 0.5)
    field = data.field.displacement[4]
    assert np.allclose(field, displacement(1)[4][::2, ::2] / 2, atol=0.1)


def test_repeated_frames_stay_in_step(folder: Path) -> None:
    frames, field = render(1, displacement(1)), displacement(1)
    frames[3], field[3] = frames[2], field[2]
    write_clip(folder / "clips" / "s1.mkv", frames)
    assert np.array_equal(pair_data(folder, 0).driving, frames)


def test_a_field_without_sector_holds_everywhere(folder: Path) -> None:
    path = folder / "displacement" / "s0.npz"
    np.savez(path, displacement=displacement(0))
    box = Letterbox.fit(SIZE, SIZE, SIZE)
    assert read_field(path, COUNT, (SIZE, SIZE), None, box).sector.all()


def test_a_crop_beside_the_sector_is_refused(made: Path) -> None:
    crop = Crop(0, 0, 8, 8)
    box = Letterbox.fit(8, 8, SIZE)
    with pytest.raises(InputError):
        read_field(made / "displacement" / "s0.npz", COUNT, (SIZE, SIZE), crop, box)


def _line(text: str) -> Break:
    def change(folder: Path) -> None:
        table = folder / "truth" / "pairs.csv"
        table.write_text("pair,source,driving,split\n" + text)

    return change


def _arrays(**changes: np.ndarray | None) -> Break:
    def change(folder: Path) -> None:
        path = folder / "truth" / "s0__s1.npz"
        with np.load(path) as archive:
            arrays = {**archive, **changes}
        np.savez(path, **{k: v for k, v in arrays.items() if v is not None})

    return change


def _bytes(change: Callable[[bytes], bytes]) -> Break:
    def broken(folder: Path) -> None:
        path = folder / "truth" / "s0__s1.npz"
        path.write_bytes(change(path.read_bytes()))

    return broken


def _flip(data: bytes) -> bytes:
    return data[:5000] + bytes([data[5000] ^ 255]) + data[5001:]


def _header(member: str, header: bytes) -> Break:
    """Another header of an array, of the version that its first bytes say."""

    def change(folder: Path) -> None:
        path = folder / "truth" / "s0__s1.npz"
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        size = len(header).to_bytes(2, "little")
        parts[f"{member}.npy"] = b"\x93NUMPY\1\0" + size + header + bytes(64)
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in parts.items():
                archive.writestr(name, data)

    return change


def _video(name: str, count: int = COUNT, size: int = SIZE) -> Break:
    def change(folder: Path) -> None:
        write_clip(folder / "truth" / name, np.zeros((count, size, size), np.uint8))

    return change


GOOD = "s0__s1,clips/s0.mkv,clips/s1.mkv,test\n"
NOT_FINITE = displacement(1)
NOT_FINITE[2, SIZE // 2, SIZE // 2] = np.nan
HUGE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000)}\n"
ARRAYS = "truth/s0__s1.npz"
WRONG: list[tuple[Break, str]] = [
    (lambda f: shutil.rmtree(f / "truth"), "truth/pairs.csv"),
    (_line(""), "truth/pairs.csv"),
    (_line("s0__s1,clips/s0.mkv,clips/s9.mkv,test\n"), "clips/s9.mkv"),
    (_line("a/b,clips/s0.mkv,clips/s1.mkv,test\n"), "a/b"),
    (_line(GOOD + GOOD), "pairs.csv:3"),
    (_line(GOOD.replace(",test", "")), "pairs.csv:2"),
    (_line(GOOD.replace("s0__s1", "s0__s9")), "s0__s9.mkv"),
    (lambda f: (f / "truth" / "s0__s1.npz").unlink(), ARRAYS),
    (lambda f: (f / "truth" / "s0__s1.other.mkv").unlink(), "s0__s1.other.mkv"),
    (lambda f: (f / "truth" / "s0__s1.mkv").write_text("no video"), "s0__s1.mkv"),
    (_bytes(lambda data: data[:2000]), ARRAYS),
    (_bytes(_flip), ARRAYS),
    (_bytes(lambda data: b""), ARRAYS),
    (_arrays(displacement=None), "displacement"),
    (_arrays(displacement=displacement(1, COUNT - 1)), "displacement"),
    (_arrays(displacement=displacement(1, COUNT, 40)), "displacement"),
    (_arrays(displacement=np.zeros((COUNT, SIZE, SIZE, 2), np.int32)), "displacement"),
    (_arrays(displacement=NOT_FINITE), "displacement"),
    (_arrays(sector=np.ones((4, 4), np.bool_)), "sector"),
    (_arrays(sector=np.zeros((SIZE, SIZE), np.bool_)), "sector"),
    (_arrays(keypoints=np.zeros((COUNT, 3, 2), np.float32)), "keypoints"),
    (_arrays(keypoints=np.zeros((COUNT, 2, 2), np.int32)), "keypoints"),
    (_arrays(keypoints=None), "keypoints"),
    (_arrays(keypoint_names=np.array(["a", None], object)), ARRAYS),
    (_arrays(keypoint_names=np.array([1.0, 2.0])), "keypoint_names"),
    (_arrays(keypoint_names=np.array([["a", "b"]])), "keypoint_names"),
    (_header("keypoints", HUGE), ARRAYS),
    (_header("keypoints", b"{'descr': '<f4', 'shape': (\n"), ARRAYS),
    (_header("keypoints", b"{[]: 1}\n"), ARRAYS),
    (_header("keypoints", b"(" * 5000), ARRAYS),
    (_header("keypoint_names", b"\xff\0"), ARRAYS),
    (_video("s0__s1.mkv", COUNT - 2), "s0__s1.mkv"),
    (_video("s0__s1.other.mkv", COUNT + 1), "s0__s1.other.mkv"),
    (_video("s0__s1.mkv", COUNT, 64), "s0__s1.mkv"),
]


@pytest.mark.parametrize(("change", "named"), WRONG)
def test_what_is_wrong_is_named_with_a_cure(folder: Path, change: Break, named: str) -> None:
    change(folder)
    with pytest.raises(InputError) as caught:
        pair_data(folder, 0)
    assert named in caught.value.message and caught.value.hint
    assert str(folder) in caught.value.message


def test_an_empty_split_names_those_that_there_are(made: Path) -> None:
    with pytest.raises(InputError) as caught:
        pairs_of(made, "validation")
    assert "'validation'" in caught.value.message and "test, train" in caught.value.hint
