"""Arrays that are slow to make, kept in files and mapped into memory.

An entry is one file, ``$XDG_CACHE_HOME/sonomime/clips/KEY.arrays``: the arrays' bytes, their types
and shapes, and a checksum of all this and of the facts that KEY stands for. An entry whose checksum
is wrong is made again. Above ``MOST_BYTES`` the least recently used ones are removed.

Nobody but the user may be able to write in the folder, since what lies in it is trained on. Where
it cannot be used, a warning says why and the arrays go to an unnamed temporary file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import stat
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_path, cache_folder
from ...runtime.support.errors import OutputError, output_errors

MOST_BYTES = 32 << 30

Layout = Sequence[tuple[str, Sequence[int]]]  # types and shapes of arrays, one after the other
Arrays = list[NDArray[Any]]

_used: set[Path] = set()  # entries that this process has opened: they stay, also above the limit
_warned: set[str] = set()


def cached_arrays(facts: object, write: Callable[[BinaryIO], Layout]) -> Arrays:
    """The arrays, memory-mapped, that ``write`` writes now or wrote for the same ``facts``.

    Args:
        facts: everything that the arrays depend on, as JSON.
        write: writes their bytes and says what they are; its own errors pass unchanged.

    Raises:
        OutputError: neither the cache nor the temporary folder can be written.
    """
    key = json.dumps(facts).encode()
    try:
        folder = _own_folder()
        path = folder / f"{hashlib.sha256(key).hexdigest()[:32]}.arrays"
        found = _open(path, key)
        if found is None:
            if path.is_symlink():
                with output_errors(path):
                    path.unlink()  # atomic_path would write to where it points
            with atomic_path(path) as temporary, temporary.open("w+b") as stream:
                layout = write(stream)
                with output_errors(path):  # some file systems cannot map files
                    _finish(stream, layout, key)
            _used.add(path)
            _evict(folder)
            found = _open(path, key)
        if found is not None:
            return found
    except OutputError as error:
        if not _warned:  # once, not for every clip
            log = logging.getLogger("sonomime")
            log.warning("decoded clips are not kept in the cache: %s", error)
        _warned.add(error.message)
    try:
        with tempfile.TemporaryFile() as stream:
            _finish(stream, write(stream), key)
            return _read(stream, key)
    except OSError as error:
        fault = f"clips can be decoded neither into the cache nor into a temporary file: {error}"
        hint = "free some space, or set XDG_CACHE_HOME to a folder that has some"
        raise OutputError(fault, hint) from error


def _own_folder() -> Path:
    folder = cache_folder() / "clips"
    with output_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise OutputError(f"{folder} is not a folder", "remove it")
    if info.st_mode & 0o022 or info.st_uid not in (0, os.getuid()):
        raise OutputError(f"others can write in {folder} (chmod go-w, or remove it)")
    return folder


def _open(path: Path, key: bytes) -> Arrays | None:
    """The entry, or None where there is none that is right."""
    with suppress(Exception):  # whatever a damaged entry leads to
        # O_NONBLOCK: a named pipe must not hang.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            found = _read(stream, key)
        with suppress(OSError):
            os.utime(path)  # the least recently used goes first
        _used.add(path)
        return found
    return None


def _finish(stream: BinaryIO, layout: Layout, key: bytes) -> None:
    text = json.dumps(layout).encode()
    stream.write(text + struct.pack("<I", len(text)))
    stream.flush()
    checksum = zlib.crc32(np.memmap(stream, np.uint8, "r"), zlib.crc32(key))
    stream.write(struct.pack("<I", checksum))
    stream.flush()


def _read(stream: BinaryIO, key: bytes) -> Arrays:
    data = np.memmap(stream, np.uint8, "r")
    length, checksum = struct.unpack("<II", data[-8:])
    if zlib.crc32(data[:-4], zlib.crc32(key)) != checksum:
        raise ValueError("damaged, or of other facts")
    arrays, at = [], 0
    for kind, shape in json.loads(bytes(data[-8 - length : -8])):
        size = np.dtype(kind).itemsize * math.prod(shape)
        arrays.append(data[at : at + size].view(kind).reshape(shape))
        at += size
    return arrays


def _evict(folder: Path) -> None:
    with suppress(OSError):  # another process may evict too
        found = [(path.lstat(), path) for path in folder.iterdir()]
        files = [(info, path) for info, path in found if stat.S_ISREG(info.st_mode)]
        left = sum(info.st_size for info, _ in files)
        for info, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if left > MOST_BYTES and path not in _used:
                path.unlink(missing_ok=True)
                left -= info.st_size
