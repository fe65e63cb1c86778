"""A file of exact displacement: read frame by frame, checked against its clip.

``displacement`` (N, H, W, 2), for each frame t of the clip's file, in pixels of the original frame,
xy: tissue seen at x in frame t is at x + d(x) in frame 0; and, if only part of the frame shows
tissue, ``sector`` bool (H, W).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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
    expected = (count, *shape, 2)
    with _member(file, "displacement", cure) as stream:
        if stream is None:
            raise ValueError("has no array 'displacement'")
        dtype = _checked(stream, "displacement", "float", expected)
        length = int(np.prod(expected[1:])) * dtype.itemsize
        for index in range(count):
            data = stream.read(length)
            if len(data) != length:
                raise ValueError(f"is cut off at frame {index}")
            field = np.frombuffer(data, dtype).reshape(expected[1:]).astype(np.float32)
            if not np.isfinite(field).all():
                raise ValueError(f"displacement of frame {index} is not finite")
            yield field
        if stream.read(1):  # also lets the archive compare its checksum
            raise ValueError("displacement goes on after its end")


def read_sector(file: Path, shape: tuple[int, int], cure: str) -> NDArray[np.bool_]:
    """Where the displacement is valid, bool (H, W); everywhere if the file does not say.

    Raises:
        InputError: see `read_fields`.
    """
    with _member(file, "sector", cure) as stream:
        if stream is None:
            return np.ones(shape, np.bool_)
        _checked(stream, "sector", "bool", shape)
        data = stream.read(shape[0] * shape[1] + 1)  # one more, for the checksum
        return np.frombuffer(data, np.uint8).reshape(shape) != 0


@contextmanager
def _member(file: Path, name: str, cure: str) -> Iterator[IO[bytes] | None]:
    """One array's stream, None where the file has none; what it meets is an InputError."""
    try:
        with zipfile.ZipFile(file) as archive:
            if f"{name}.npy" not in archive.namelist():
                yield None
            else:
                with archive.open(f"{name}.npy") as stream:
                    yield stream
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for a damaged file
        reason = str(error) or type(error).__name__
        raise InputError(f"{file} is damaged or does not fit: {reason}", cure) from error


def _checked(stream: IO[bytes], name: str, kind: str, expected: tuple[int, ...]) -> np.dtype[Any]:
    """The type of an array whose header is right."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("holds an array of another version")  # whose header may be gigabytes long
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if shape != expected or not dtype.name.startswith(kind) or fortran:
        order = " in Fortran order" if fortran else ""
        raise ValueError(f"{name} is {dtype} {shape}{order}, the clip needs {kind} {expected}")
    return dtype
