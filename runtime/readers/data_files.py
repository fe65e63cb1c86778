"""The files with the values that a MetaImage or NRRD header describes: named, opened, unpacked."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..support.errors import InputError

_MAX_FILES = 100_000
_CHUNK = 1 << 16


class Part(NamedTuple):
    """A file of values, and how many bytes come before them; -1: they end with the file."""

    path: Path
    skip: int


def data_files(path: Path, said: str, lines: Sequence[str], skip: int) -> list[Part]:
    """The files with the values, as a header names them: a name, LIST with the names in the `lines`
    that follow, or a pattern with its first and last number and step ("slice%03d.raw 1 20 1").

    Raises:
        InputError: not such names, or not of files in the header's own folder.
    """
    words = said.split()
    names = [said.strip()]
    if words[:1] == ["LIST"]:
        names = [line.strip() for line in lines if line.strip()]
    elif "%" in said:
        pattern = re.fullmatch(r"([^%]*)%(0?)(\d{0,2})d([^%]*)", " ".join(words[:-3]))
        if pattern is None or not all(re.fullmatch(r"\d{1,5}", word) for word in words[-3:]):
            hint = "it is written like slice%03d.raw 1 20 1: first number, last number, step"
            raise InputError(f"{path}: cannot read the pattern of files {said!r}", hint)
        first, last, step = map(int, words[-3:])
        before, zero, width, after = pattern.groups()
        numbers = range(first, last + 1, max(1, step))
        names = [f"{before}{number:{zero}{width}d}{after}" for number in numbers]
    if not 0 < len(names) <= _MAX_FILES:
        raise InputError(f"{path} names {len(names)} data files", f"1 to {_MAX_FILES} are read")
    folder = path.resolve().parent
    for name in names:
        # A header from elsewhere must not make us read, and show, any other file.
        plain = name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)
        file = folder / name if plain else folder
        if not plain or (file.is_symlink() and file.resolve().parent != folder):
            hint = "the data lie beside the header, under their own names; links out are not used"
            raise InputError(f"{path}: its data file {name[:80]!r} is not in its folder", hint)
    return [Part(folder / name, skip) for name in names]


class Unpacked:
    """A zlib or gzip stream that makes as many bytes as are asked for, and no more."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rest = file, b""
        self._machine = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def read(self, size: int) -> bytearray:
        """Fewer at the end; zlib.error where the stream is damaged."""
        made = bytearray()
        while len(made) < size:
            if self._machine.eof:  # a gzip file may have several members
                self._rest = self._machine.unused_data or self._file.read(_CHUNK)
                if not self._rest.startswith(b"\x1f\x8b"):
                    break
                self._machine = zlib.decompressobj(zlib.MAX_WBITS | 32)
            packed = self._rest or self._file.read(_CHUNK)
            new = self._machine.decompress(packed, size - len(made))
            self._rest = self._machine.unconsumed_tail
            if not packed and not new:
                break
            made += new
        return made


def open_part(part: Part, size: int) -> BinaryIO:
    """A file at the first of its `size` bytes of values.

    Raises:
        OSError: it is not there, or too short.
    """
    if not part.path.is_file():
        raise OSError("there is no such file")
    length = part.path.stat().st_size
    skip = length - size if part.skip < 0 else part.skip
    if not 0 <= skip <= length:
        raise OSError("it is cut off")
    file = part.path.open("rb")
    file.seek(skip)
    return file


def bytes_left(file: BinaryIO) -> int:
    """How many bytes follow in a file."""
    at = file.tell()
    end = file.seek(0, 2)
    file.seek(at)
    return end - at
