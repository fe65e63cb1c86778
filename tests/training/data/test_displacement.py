"""Exact displacement beside a clip: found, placed, cached, and refused when it does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.support.errors import InputError
from sonomime.training.data import displacement as module
from sonomime.training.data.dataset import ClipFrames, find_clips, load_clip

H, W, T, SIZE = 48, 64, 4, 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sonomime" / "clips"


def linear(t: int) -> np.ndarray:
    """A field that interpolation does not change: (x + 2 y, 3) t / 16 pixels."""
    y, x = np.mgrid[:H, :W]
    return np.stack([(x + 2 * y) * t / 16, np.full((H, W), 3 * t / 16)], -1).astype(np.float32)


FIELDS = np.stack([linear(t) for t in range(T)])


def write(folder: Path, save: Callable[..., None] = np.savez_compressed, **arrays: Any) -> Path:
    """A dataset of one clip, a folder of frames of which the third repeats the second."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (T, H, W), dtype=np.uint8)
    images[2] = images[1]
    (folder / "clips" / "a.b").mkdir(parents=True, exist_ok=True)
    for t, image in enumerate(images):
        cv2.imwrite(str(folder / "clips" / "a.b" / f"{t}.png"), image)
    table = "clip,subject,group,split,crop\nclips/a.b,s,g,train,\n"
    (folder / "clips.csv").write_text(table)
    file = folder / "displacement" / "a.b.npz"
    file.parent.mkdir(exist_ok=True)
    save(file, **(arrays or {"displacement": FIELDS}))
    return file


def load(folder: Path, crop: Crop | None = None) -> ClipFrames:
    return load_clip(find_clips([folder], crop=crop).clips[0], SIZE, 1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_displacement_is_in_points_at_a_quarter(tmp_path: Path, save: Callable[..., None]) -> None:
    sector = np.ones((H, W), np.bool_)
    sector[:, :9] = False
    write(tmp_path, save, displacement=FIELDS, sector=sector)
    clip = load(tmp_path)
    assert clip.indices.tolist() == [0, 1, 3]
    assert isinstance(clip.displacement, np.memmap)
    assert clip.displacement.shape == (3, 8, 8, 2)
    assert clip.displacement.dtype == np.float32
    # 64 x 48 in a square of 32: half the size, four rows of padding above and below.
    cells = np.arange(8) * 4 + 1.5
    x, y = np.meshgrid((cells + 0.5) * 2 - 0.5, (cells[1:7] - 4 + 0.5) * 2 - 0.5)
    for row, t in zip(clip.displacement, (0, 1, 3), strict=True):
        np.testing.assert_allclose(row[1:7, :, 0], (x + 2 * y) * t / 16 / 2 / 16, atol=1e-5)
        np.testing.assert_allclose(row[1:7, :, 1], 3 * t / 16 / 2 / 16, atol=1e-6)
    assert clip.sector is not None
    assert clip.sector[1:7, 2:].all()
    assert clip.sector.sum() == 6 * 6


def test_displacement_follows_the_crop(tmp_path: Path) -> None:
    write(tmp_path)
    clip = load(tmp_path, Crop(20, 10, 16, 32))
    assert clip.displacement is not None
    assert clip.sector is not None
    x, y = np.meshgrid(np.arange(8) * 4 + 13.5, np.arange(8) * 4 + 11.5)
    expected = (x + 2 * y) / 16 / 16  # a picture of 16 x 32 at its own size, eight columns in
    np.testing.assert_allclose(clip.displacement[1, :, 2:6, 0], expected[:, 2:6], atol=1e-5)
    assert clip.sector[:, 2:6].all()
    assert clip.sector.sum() == 8 * 4
    with pytest.raises(InputError, match="reaches outside"):
        load(tmp_path, Crop(60, 0, 16, 16))


def test_clips_without_a_file_have_none(tmp_path: Path) -> None:
    write(tmp_path).unlink()
    clip = load(tmp_path)
    assert clip.displacement is clip.sector is None


def test_the_cache_is_used_and_follows_the_file(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path)
    mapped = load(tmp_path).displacement
    assert mapped is not None
    first = np.array(mapped)
    decoded: list[Path] = []
    original = module._decode

    def counted(path: Path, *rest: Any) -> None:
        decoded.append(path)
        original(path, *rest)

    monkeypatch.setattr(module, "_decode", counted)
    np.testing.assert_array_equal(load(tmp_path).displacement, first)
    assert decoded == []
    for entry in ("*.displacement.npy", "*.sector.npy"):
        (damaged,) = own_cache.glob(entry)
        damaged.write_bytes(damaged.read_bytes()[:-3])
        np.testing.assert_array_equal(load(tmp_path).displacement, first)
    assert len(decoded) == 2
    write(tmp_path, displacement=2 * FIELDS)
    os.utime(file, ns=(1, 1))
    np.testing.assert_array_equal(load(tmp_path).displacement, 2 * first)
    (tmp_path / "clips" / "a.b" / "0.png").touch()
    load(tmp_path)
    assert len(decoded) == 4


BAD = FIELDS.copy()
BAD[2, 5, 6, 1] = np.nan


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"displacement": FIELDS[:3]}, r"the clip needs float32 \(4, 48, 64, 2\)"),
        ({"displacement": FIELDS[:, :, :40]}, r"\(4, 48, 40, 2\)"),
        ({"displacement": FIELDS.astype(int)}, "int64"),
        ({"displacement": np.asfortranarray(FIELDS)}, "Fortran"),
        ({"displacement": BAD}, "frame 2 is not finite"),
        ({"displacement": np.array([None])}, "object"),
        ({"d": FIELDS}, "no array 'displacement'"),
        (
            {"displacement": FIELDS, "sector": np.ones((W, H), np.bool_)},
            r"sector is bool \(64, 48\)",
        ),
        ({"displacement": FIELDS, "sector": np.ones((H, W))}, "sector is float64"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, own_cache: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    write(tmp_path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load(tmp_path)
    assert "a.b.npz" in caught.value.message
    assert "remove it" in caught.value.hint
    assert not [file for file in own_cache.iterdir() if "displacement" in file.name]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, save: Callable[..., None], damage: str) -> None:
    file = write(tmp_path, save)
    data = bytearray(file.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 255
    file.write_bytes({"text": b"no archive", "empty": b""}.get(damage, bytes(data)))
    with pytest.raises(InputError, match=r"a\.b\.npz") as caught:
        load(tmp_path)
    assert "remove it" in caught.value.hint


def test_two_clips_cannot_share_a_file(tmp_path: Path) -> None:
    for name in ("one/v.mkv", "two/v.mkv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "displacement").mkdir()
    (tmp_path / "displacement" / "v.npz").write_bytes(b"")
    with pytest.raises(InputError, match="could belong to") as caught:
        find_clips([tmp_path])
    assert "rename" in caught.value.hint
