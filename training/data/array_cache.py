"""Arrays that are slow to make, kept in files and mapped into memory.

An entry is one file, ``$XDG_CACHE_HOME/sonomime/clips/KEY.arrays``: arrays in numpy's format, one
after the other, and a checksum. Entries are checked when they are opened, and made again where they
are wrong. The least recently used ones are removed when all together exceed ``MOST_BYTES``.

Only the user may be able to write in the folder, since what lies in it is trained on. Where it
cannot be used (a full disk, a read-only one, other people's permissions), a warning says so and the
arrays go to an unnamed temporary file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from lzma import LZMAError
from pathlib import Path
from tokenize import TokenError
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.atomic_files import atomic_path, cache_folder
from ...runtime.support.errors import OutputError, output_errors

MOST_BYTES = 32 << 30

#: What reading a damaged .npz or .npy can raise.
DAMAGE = (
    EOFError, LookupError, LZMAError, MemoryError, OSError, OverflowError, RuntimeError,
    SyntaxError, TokenError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

Arrays = Sequence[NDArray[np.generic]]
T = TypeVar("T")

log = logging.getLogger("sonomime")

_used: set[Path] = set()  # entries that this process has opened: they stay, also above the limit
_unusable: set[Path | None] = set()  # caches that a warning has named


def cached_arrays(
    facts: object,
    write: Callable[[BinaryIO], None],
    read: Callable[[Arrays], T | None],
    cache_dir: Path | None = None,
) -> T:
    """What ``read`` makes of the arrays that ``write`` writes now, or wrote for the same ``facts``.

    Args:
        facts: everything that the arrays depend on, as JSON.
        write: writes them; its own errors pass unchanged.
        read: checks them, memory-mapped. None or an exception: they are not right.
        cache_dir: instead of the user's.

    Raises:
        OutputError: neither the cache nor the temporary folder can be written.
    """
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    try:
        path = _own_folder(cache_dir) / f"{key}.arrays"
        found = _open(path, read)
        if found is None:
            if path.is_symlink():
                with output_errors(path):
                    path.unlink()  # atomic_path would write to where it points
            with atomic_path(path) as temporary, temporary.open("w+b") as stream:
                write(stream)
                with output_errors(path):  # some file systems cannot map files
                    np.save(stream, _checksum(_mapped(stream)))
            _used.add(path)
            _evict(path.parent)
            found = _open(path, read)
    except OutputError as error:
        if not _unusable:  # once, not for every clip
            log.warning("decoded clips are not kept in the cache: %s", error)
        _unusable.add(cache_dir)
        found = None
    return _without_cache(write, read) if found is None else found


def _without_cache(write: Callable[[BinaryIO], None], read: Callable[[Arrays], T | None]) -> T:
    try:
        with tempfile.TemporaryFile() as stream:
            write(stream)
            stream.flush()
            found = read(_mapped(stream))
    except OSError as error:
        raise OutputError(
            f"decoded clips can be written neither to the cache nor to a temporary file: {error}",
            "free some space, or set XDG_CACHE_HOME to a folder that has some",
        ) from error
    assert found is not None, "what was just written is right"
    return found


def _own_folder(cache_dir: Path | None) -> Path:
    folder = cache_dir or cache_folder() / "clips"
    with output_errors(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise OutputError(f"{folder} is not a folder", "remove it")
    if info.st_mode & 0o022 or info.st_uid not in (0, os.getuid()):
        raise OutputError(f"others can write in {folder} (chmod go-w, or remove it)")
    return folder


def _open(path: Path, read: Callable[[Arrays], T | None]) -> T | None:
    """The entry, or None where there is none that is right."""
    with suppress(Exception):  # whatever a damaged entry leads to
        # O_NONBLOCK: a named pipe must not hang.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            *arrays, checksum = _mapped(stream)
            found = read(arrays) if int(checksum) == _checksum(arrays) else None
        with suppress(OSError):
            os.utime(path)  # the least recently used goes first
        _used.add(path)
        return found
    return None


def _mapped(stream: BinaryIO) -> Arrays:
    arrays: list[NDArray[np.generic]] = []
    at, end = 0, stream.seek(0, os.SEEK_END)  # which also flushes
    while at < end:
        stream.seek(at)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("an array of another version")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        arrays.append(np.memmap(stream, dtype, "r", stream.tell(), shape))
        at = int(arrays[-1].offset) + arrays[-1].nbytes
    return arrays


def _checksum(arrays: Arrays) -> int:
    checksum = 0
    for array in arrays:
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8), checksum)
    return checksum


def _evict(folder: Path) -> None:
    with suppress(OSError):  # another process may evict too
        found = [(path.lstat(), path) for path in folder.iterdir()]
        files = [(info, path) for info, path in found if stat.S_ISREG(info.st_mode)]
        left = sum(info.st_size for info, _ in files)
        for info, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if left > MOST_BYTES and path not in _used:
                path.unlink(missing_ok=True)
                left -= info.st_size
