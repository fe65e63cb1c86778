"""A file of exact displacement: read frame by frame, checked against its clip.

``displacement`` (N, H, W, 2), for each frame t of the clip's file, in pixels of the original frame,
xy: tissue seen at x in frame t is at x + d(x) in frame 0; and, if only part of the frame shows
tissue, ``sector`` bool (H, W).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.errors import InputError


def read_fields(
    file: Path, count: int, shape: tuple[int, int], cure: str
) -> Iterator[NDArray[np.float32]]:
    """The displacement of each frame of a clip of ``count`` frames of ``shape`` (H, W): float32
    (H, W, 2), finite; one frame in memory at a time.

    Raises:
        InputError: with ``cure`` as its hint: the file cannot be read, is damaged, not finite, of
            another size or number of frames.
    """
    return _items(file, "displacement", "float", (count, *shape, 2), cure)


def read_sector(file: Path, shape: tuple[int, int], cure: str) -> NDArray[np.bool_]:
    """Where the displacement is valid, bool (H, W); everywhere if the file does not say.

    Raises:
        InputError: see `read_fields`.
    """
    rows = list(_items(file, "sector", "bool", shape, cure))
    return np.array(rows) != 0 if rows else np.ones(shape, np.bool_)


def _items(
    file: Path, name: str, kind: str, expected: tuple[int, ...], cure: str
) -> Iterator[NDArray[np.float32]]:
    """What an array holds along its first axis; nothing where the file has no sector."""
    try:
        with zipfile.ZipFile(file) as archive:
            if name == "sector" and f"{name}.npy" not in archive.namelist():
                return
            with archive.open(f"{name}.npy") as stream:
                if np.lib.format.read_magic(stream) != (1, 0):  # a header may be gigabytes long
                    raise ValueError("holds an array of another version")
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
                if shape != expected or not dtype.name.startswith(kind) or fortran:
                    found = f"{dtype} {shape}{' in Fortran order' if fortran else ''}"
                    raise ValueError(f"{name} is {found}, the clip needs {kind} {expected}")
                length = int(np.prod(expected[1:])) * dtype.itemsize
                stored = np.uint8 if kind == "bool" else dtype
                for index in range(expected[0]):
                    data = stream.read(length)
                    if len(data) != length:
                        raise ValueError(f"{name} is cut off at {index}")
                    item = np.frombuffer(data, stored).reshape(expected[1:]).astype(np.float32)
                    if not np.isfinite(item).all():
                        raise ValueError(f"{name} of frame {index} is not finite")
                    yield item
                if stream.read(1):  # also lets the archive compare its checksum
                    raise ValueError(f"{name} goes on after its end")
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for a damaged file
        reason = str(error) or type(error).__name__
        raise InputError(f"{file} is damaged or does not fit: {reason}", cure) from error
