"""PNG files are read without OpenCV, in every way that they can be filtered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sonomime.benchmarks.gpu.png_reader import read_png
from sonomime.runtime.media.png import png_bytes
from sonomime.runtime.support.errors import InputError


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3)])
@pytest.mark.parametrize("strategy", range(5))
def test_png_files_are_read_without_opencv(
    shape: tuple[int, ...], strategy: int, tmp_path: Path
) -> None:
    import struct
    import zlib

    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(picture, {"comment": "as sonomime writes it"}))
    assert np.array_equal(read_png(path), picture)
    # Every filter, by an encoder written here: 0 none, 1 left, 2 up, 3 average, 4 Paeth.
    channels = 1 if picture.ndim == 2 else 3
    lines = picture.reshape(9, -1).astype(int)
    raw = b""
    for y, line in enumerate(lines):
        up = lines[y - 1] if y else np.zeros_like(line)
        left = np.concatenate([np.zeros(channels, int), line[:-channels]])
        corner = np.concatenate([np.zeros(channels, int), up[:-channels]])
        distances = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))
        paeth = np.choose(distances.argmin(0), [left, up, corner])
        guess = [np.zeros_like(line), left, up, (left + up) // 2, paeth][strategy]
        raw += bytes([strategy]) + ((line - guess) & 255).astype(np.uint8).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 13, 9, 8, 0 if channels == 1 else 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw))
    )
    assert np.array_equal(read_png(path), picture)


def test_png_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no PNG"):
        read_png(path)
    good = png_bytes(np.zeros((9, 13), np.uint8))
    path.write_bytes(good[:24] + b"\x10" + good[25:])
    with pytest.raises(InputError, match="8-bit"):
        read_png(path)
