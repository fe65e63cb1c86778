"""Exact displacement beside a clip: found, placed, and refused when it does not fit."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import find_clips

from .clips import refused, write_folder

H, W, T, SIZE = 48, 64, 4, 32
Y, X = np.mgrid[:H, :W]
#: Fields that interpolation does not change: (x + 2 y, 3) t / 16 pixels.
FIELDS = np.stack([np.stack([(X + 2 * Y) * t / 16, 0 * X + 3 * t / 16], -1) for t in range(T)])
FIELDS = FIELDS.astype(np.float32)
SECTOR = np.tile(np.arange(W) >= 9, (H, 1))


def write(folder: Path, save: Callable[..., None] = np.savez_compressed, **arrays: Any) -> Path:
    """A bare folder with one clip, a folder of frames of which the third repeats the second."""
    images = np.random.default_rng(0).integers(0, 256, (T, H, W), dtype=np.uint8)
    images[2] = images[1]
    write_folder(folder / "a.b", images, "{}.png")
    file = folder / "displacement" / "a.b.npz"
    file.parent.mkdir(exist_ok=True)
    save(file, **arrays)
    return file


def load(folder: Path, crop: Crop | None = None) -> ClipFrames:
    return load_clip(find_clips([folder], crop=crop).clips[0], SIZE, 1)


def test_displacement_is_in_points_at_a_quarter(tmp_path: Path) -> None:
    write(tmp_path, np.savez, displacement=FIELDS, sector=SECTOR)
    clip = load(tmp_path)
    assert clip.indices.tolist() == [0, 1, 3]
    assert isinstance(clip.displacement, np.memmap) and clip.sector is not None
    assert (clip.displacement.shape, clip.displacement.dtype) == ((3, 8, 8, 2), np.float32)
    # 64 x 48 in a square of 32: half the size, four rows of padding above and below.
    cells = np.arange(8) * 4 + 1.5
    x, y = np.meshgrid((cells + 0.5) * 2 - 0.5, (cells[1:7] - 4 + 0.5) * 2 - 0.5)
    for row, t in zip(clip.displacement, (0, 1, 3), strict=True):
        np.testing.assert_allclose(row[1:7, :, 0], (x + 2 * y) * t / 16 / 2 / 16, atol=1e-5)
        np.testing.assert_allclose(row[1:7, :, 1], 3 * t / 16 / 2 / 16, atol=1e-6)
    assert clip.sector[1:7, 2:].all() and clip.sector.sum() == 6 * 6


def test_displacement_follows_the_crop(tmp_path: Path) -> None:
    write(tmp_path, displacement=FIELDS)
    clip = load(tmp_path, Crop(20, 10, 16, 32))
    assert clip.displacement is not None and clip.sector is not None
    x, y = np.meshgrid(np.arange(8) * 4 + 13.5, np.arange(8) * 4 + 11.5)
    expected = (x + 2 * y) / 16 / 16  # a picture of 16 x 32 at its own size, eight columns in
    np.testing.assert_allclose(clip.displacement[1, :, 2:6, 0], expected[:, 2:6], atol=1e-5)
    assert clip.sector[:, 2:6].all() and clip.sector.sum() == 8 * 4


def header(text: str, version: int = 1) -> bytes:
    size = len(text).to_bytes(2 * version, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


BAD = FIELDS.copy()
BAD[2, 5, 6, 1] = np.nan
BOMB = header("{'descr': '|b1', 'fortran_order': False, 'shape': (48, 64)}\n") + bytes(64 << 20)


@pytest.mark.parametrize(
    ("member", "content", "named"),
    [
        ("displacement", FIELDS[:3], "(4, 48, 64, 2)"),
        ("displacement", FIELDS[:, :, :40], "(4, 48, 40, 2)"),
        ("displacement", FIELDS.astype(int), "int64"),
        ("displacement", np.asfortranarray(FIELDS), "Fortran"),
        ("displacement", BAD, "frame 2"),
        ("displacement", np.array([None]), "object"),
        ("displacement", None, "displacement.npy"),
        ("displacement", b"", ""),
        ("displacement", npy(FIELDS)[:-9], "cut off"),
        ("displacement", npy(FIELDS) + b"more", "goes on"),
        ("displacement", header("{'descr': '<f4', 'shape': (4,"), ""),
        ("displacement", header("(" * 9000), ""),
        ("displacement", header(" " * (64 << 20), version=2), "version"),
        ("displacement", BOMB, "bool"),
        ("sector", BOMB, "goes on"),
        ("sector", SECTOR.T, "(64, 48)"),
        ("sector", SECTOR * 1.0, "float64"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_does_not_fit_is_refused_in_little_memory_and_not_cached(
    member: str, content: np.ndarray | bytes | None, named: str, tmp_path: Path, own_cache: Path
) -> None:
    file = write(tmp_path)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"displacement": FIELDS, member: content}.items():
            if data is not None:
                whole = npy(data) if isinstance(data, np.ndarray) else data
                archive.writestr(f"{name}.npy", whole)
    assert file.stat().st_size < 1 << 20
    del data
    tracemalloc.start()
    refused(lambda: load(tmp_path), "a.b.npz", "remove it", named)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert not list(own_cache.iterdir())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused(tmp_path: Path, save: Callable[..., None]) -> None:
    file = write(tmp_path, save, displacement=FIELDS)
    data = file.read_bytes()
    half = len(data) // 2
    for damaged in (data[:half], data[:half] + bytes([data[half] ^ 255]) + data[half + 1 :], b""):
        file.write_bytes(damaged)
        refused(lambda: load(tmp_path), "a.b.npz")
