"""A file of exact displacement: read frame by frame, checked against its clip.

``displacement`` (N, H, W, 2), for each frame t of the clip's file, in pixels of the original frame,
xy: tissue seen at x in frame t is at x + d(x) in frame 0; and, if only part of the frame shows
tissue, ``sector`` bool (H, W).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.errors import InputError


class Displacement(NamedTuple):
    """What such a file holds.

    Attributes:
        sector: bool (H, W); everywhere if the file has none.
        fields: of each frame, float32 (H, W, 2), finite; one frame in memory at a time.
    """

    sector: NDArray[np.bool_]
    fields: Iterator[NDArray[np.float32]]


class _Misfit(Exception):
    """What is wrong with a file."""


@contextmanager
def open_displacement(
    file: Path, count: int, shape: tuple[int, int], cure: str
) -> Iterator[Displacement]:
    """Open the displacement of a clip of ``count`` frames of ``shape`` (H, W).

    Raises:
        InputError: naming the file, with ``cure`` as its hint: it cannot be read, is damaged, of
            another size or number of frames, not finite; at opening or while it is read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            yield Displacement(_sector(archive, shape), _fields(archive, (count, *shape, 2)))
    except _Misfit as error:
        raise InputError(f"{file}: {error}", cure) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{file} is damaged: {error}", cure) from error


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes] | None:
    try:
        return archive.open(f"{name}.npy")
    except KeyError:
        return None


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version[0] > 1:
        read = np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return shape, fortran, dtype


def _fields(archive: zipfile.ZipFile, expected: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
    stream = _member(archive, "displacement")
    if stream is None:
        raise _Misfit("has no array 'displacement'")
    with stream:
        shape, fortran, dtype = _header(stream)
        if shape != expected or dtype.kind != "f" or fortran:
            raise _Misfit(
                f"displacement is {dtype} {shape}{' in Fortran order' * fortran}, the clip "
                f"needs float32 {expected}: its frames, height, width and xy"
            )
        length = int(np.prod(expected[1:])) * dtype.itemsize
        for index in range(expected[0]):
            data = stream.read(length)
            if len(data) != length:
                raise _Misfit(f"is cut off at frame {index}")
            field = np.frombuffer(data, dtype).reshape(expected[1:]).astype(np.float32)
            if not np.isfinite(field).all():
                raise _Misfit(f"displacement of frame {index} is not finite")
            yield field
        if stream.read(1):  # also lets the archive compare its checksum
            raise _Misfit("is damaged: displacement goes on after its end")


def _sector(archive: zipfile.ZipFile, expected: tuple[int, int]) -> NDArray[np.bool_]:
    stream = _member(archive, "sector")
    if stream is None:
        return np.ones(expected, np.bool_)
    with stream:
        shape, _, dtype = _header(stream)
    if shape != expected or dtype != np.bool_:
        raise _Misfit(f"sector is {dtype} {shape}, the clip needs bool {expected}")
    with archive.open("sector.npy") as stream:
        inside: NDArray[np.bool_] = np.lib.format.read_array(stream, allow_pickle=False)
    return inside
