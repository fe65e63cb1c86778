"""What a phantom's folder says, every way in which it can be wrong, and flows from exact fields."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.runtime.media.frames import Crop, Letterbox
from sonomime.runtime.support.errors import InputError
from sonomime.training.evaluation.metrics import length, pixel_grid
from sonomime.training.evaluation.truth import flow_between, read_field

from .fakes import (
    COUNT,
    MARKS,
    NAMES,
    SIZE,
    displacement,
    first_pair,
    render,
    sector,
    write_clip,
)

Break = Callable[[Path], object]


@pytest.fixture
def folder(phantom: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(phantom, tmp_path / "phantom"))


def test_a_pair_is_read_frame_by_frame_and_a_smaller_model_sees_smaller_truth(
    phantom: Path,
) -> None:
    data = first_pair(phantom)[1]
    assert np.array_equal(data.source, render(0, displacement(0))[0])
    assert np.array_equal(data.driving, render(1, displacement(1)))
    assert np.array_equal(data.truth, render(0, displacement(1)))
    assert np.array_equal(data.other, render(100, displacement(1)))
    assert np.array_equal([data.flow(t)[0] for t in range(COUNT)], displacement(1))
    assert np.array_equal(data.sector, sector())
    assert data.names == NAMES and data.points.shape == (COUNT, 2, 2)
    assert np.allclose(data.start, MARKS)
    small = first_pair(phantom, SIZE // 2, 3)[1]
    assert small.truth.shape == (COUNT, SIZE // 2, SIZE // 2, 3)
    assert np.allclose(small.start, (MARKS + 0.5) / 2 - 0.5)
    assert np.allclose(small.flow(4)[0], displacement(1)[4][::2, ::2] / 2, atol=0.1)


def test_a_field_without_sector_holds_everywhere_and_repeated_frames_stay_in_step(
    folder: Path,
) -> None:
    frames, field = render(1, displacement(1)), displacement(1)
    frames[3], field[3] = frames[2], field[2]
    write_clip(folder / "clips" / "s1.mkv", frames)
    _arrays(displacement=field, sector=None)(folder)
    data = first_pair(folder)[1]
    assert np.array_equal(data.driving, frames) and data.sector.all()


def _line(text: str) -> Break:
    table = Path("truth", "pairs.csv")
    return lambda f: (f / table).write_text("pair,source,driving,split\n" + text)


def _arrays(**changes: np.ndarray | None) -> Break:
    """Other arrays; None: without it."""

    def change(folder: Path) -> None:
        with np.load(folder / ARRAYS) as archive:
            arrays = {**archive, **changes}
        there = {name: array for name, array in arrays.items() if array is not None}
        np.savez(folder / ARRAYS, **there)

    return change


def _keypoints(data: bytes) -> Break:
    """Other bytes for that array."""

    def change(folder: Path) -> None:
        _arrays(keypoints=None)(folder)
        with zipfile.ZipFile(folder / ARRAYS, "a") as archive:
            archive.writestr("keypoints.npy", data)

    return change


def _video(name: str, count: int = COUNT, size: int = SIZE) -> Break:
    return lambda f: write_clip(f / "truth" / name, np.zeros((count, size, size), np.uint8))


GOOD = "s0__s1,clips/s0.mkv,clips/s1.mkv,test\n"
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
    (_arrays(displacement=displacement(1)[1:]), "displacement"),
    (_arrays(sector=np.zeros((SIZE, SIZE), np.bool_)), "sector"),
    (_arrays(keypoints=np.zeros((COUNT, 3, 2), np.float32)), "keypoints"),
    (_arrays(keypoints=np.zeros((COUNT, 2, 2), np.int32)), "keypoints"),
    (_arrays(keypoint_names=np.array(["a", None], object)), ARRAYS),
    (_arrays(keypoint_names=np.array([1.0, 2.0])), "keypoint_names"),
    (_arrays(keypoints=None), "keypoints"),
    (_keypoints(b"\x93NUMPY\1\0\x88\x13" + b"(" * 5000), ARRAYS),
    (_keypoints(bytes((1 << 26) + 1)), "keypoints"),
    (_video("s0__s1.mkv", COUNT - 2), "s0__s1.mkv"),
    (_video("s0__s1.mkv", COUNT, 64), "s0__s1.mkv"),
]


@pytest.mark.parametrize(("change", "named"), WRONG)
def test_what_is_wrong_is_named_with_a_cure(folder: Path, change: Break, named: str) -> None:
    change(folder)
    with pytest.raises(InputError) as caught:
        first_pair(folder)
    assert named in caught.value.message and caught.value.hint
    assert str(folder) in caught.value.message


def _bump(at: NDArray[np.float32], strength: float) -> NDArray[np.float32]:
    """D(x) = -strength * bump(x), steepest slope 0.6 strength / 12."""
    bump = np.exp(-((at - SIZE / 2) ** 2).sum(-1, keepdims=True) / (2 * 12.0**2))
    return (np.array([-strength, 0.3 * strength]) * bump).astype(np.float32)


@pytest.mark.parametrize("strength", [5.0, -19.0, 24.0])
def test_the_solution_shows_the_same_tissue_even_in_strong_fields(strength: float) -> None:
    grid = pixel_grid(SIZE, SIZE)
    driving, source = _bump(grid, -strength / 2), _bump(grid, strength)
    flow, known = flow_between(driving, source)
    miss = length(flow + _bump(grid + flow, strength) - driving)
    # The field is read bilinearly: between its pixels it is off by an eighth of its curvature.
    assert miss[known].max() < 0.06
    assert known.mean() > (0.95 if abs(strength) < 20 else 0.8)
    shift = np.full_like(driving, 10)
    inside = (grid < SIZE - 10).all(axis=-1)
    assert np.array_equal(flow_between(shift, 0 * shift)[1], inside)


def test_a_crop_moves_the_field_along(tmp_path: Path) -> None:
    crop, box = Crop(10, 4, 20, 10), Letterbox.fit(20, 10, 20)
    np.savez(tmp_path / "a.npz", displacement=pixel_grid(40, 60)[None])
    (moved,), sector = read_field(tmp_path / "a.npz", 1, (40, 60), crop, box)
    # The 20 x 10 crop lies in rows 5 to 14 of the square.
    assert np.allclose(moved[5, 0], (10, 4)) and np.allclose(moved[14, 19], (29, 13))
    assert not moved[:5].any() and not moved[15:].any()
    assert sector[5:15].all() and sector.sum() == 200
