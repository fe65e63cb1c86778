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
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.errors import InputError
from .array_cache import DAMAGE


class Displacement(NamedTuple):
    """What such a file holds.

    Attributes:
        sector: bool (H, W); everywhere if the file has none.
        fields: of each frame, float32 (H, W, 2), finite; one frame in memory at a time.
    """

    sector: NDArray[np.bool_]
    fields: Iterator[NDArray[np.float32]]


@contextmanager
def open_displacement(
    file: Path, count: int, shape: tuple[int, int], cure: str
) -> Iterator[Displacement]:
    """Open the displacement of a clip of ``count`` frames of ``shape`` (H, W).

    Raises:
        InputError: naming the file, with ``cure`` as its hint: it cannot be read, is damaged, of
            another size or number of frames, not finite; at opening or while it is read.
    """

    @contextmanager
    def complaints() -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise InputError(f"{file} is damaged or does not fit: {reason}", cure) from error

    def guarded() -> Iterator[NDArray[np.float32]]:
        with complaints():
            yield from _fields(archive, (count, *shape, 2))

    with complaints():
        archive = zipfile.ZipFile(file)
    with archive:
        with complaints():
            sector = _sector(archive, shape)
        yield Displacement(sector, guarded())


def _fields(archive: zipfile.ZipFile, expected: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    if "displacement.npy" not in archive.namelist():
        raise ValueError("has no array 'displacement'")
    with archive.open("displacement.npy") as stream:
        dtype = _checked(stream, "displacement", "float", expected)
        length = int(np.prod(expected[1:])) * dtype.itemsize
        for index in range(expected[0]):
            data = stream.read(length)
            if len(data) != length:
                raise ValueError(f"is cut off at frame {index}")
            field = np.frombuffer(data, dtype).reshape(expected[1:]).astype(np.float32)
            if not np.isfinite(field).all():
                raise ValueError(f"displacement of frame {index} is not finite")
            yield field
        if stream.read(1):  # also lets the archive compare its checksum
            raise ValueError("displacement goes on after its end")


def _sector(archive: zipfile.ZipFile, expected: tuple[int, int]) -> NDArray[np.bool_]:
    if "sector.npy" not in archive.namelist():
        return np.ones(expected, np.bool_)
    with archive.open("sector.npy") as stream:
        _checked(stream, "sector", "bool", expected)
        data = stream.read(expected[0] * expected[1] + 1)  # one more, for the checksum
    return np.frombuffer(data, np.uint8).reshape(expected) != 0


def _checked(stream: IO[bytes], name: str, kind: str, expected: tuple[int, ...]) -> np.dtype[Any]:
    """The type of an array whose header is right."""
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("holds an array of another version")  # whose header may be gigabytes long
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if shape != expected or not dtype.name.startswith(kind) or fortran:
        order = " in Fortran order" if fortran else ""
        raise ValueError(f"{name} is {dtype} {shape}{order}, the clip needs {kind} {expected}")
    return dtype
