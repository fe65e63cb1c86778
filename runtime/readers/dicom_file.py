"""DICOM files as bytes: the header, and where each frame lies; nothing is read that is not needed.

Lengths in a damaged file are nonsense, so nothing is allocated because a length asks for it.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import tempfile
import warnings
import zlib
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..support.errors import InputError, UnsupportedFormat
from .file_headers import check_size

_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"  # Enhanced US Volume
_DEFLATED = "1.2.840.10008.1.2.1.99"
_MOST_INFLATED = 1 << 28
"""Bytes of a deflated file that are inflated, besides a hundred times its length."""
_MOST_FRAMES, _MOST_ITEMS = 100_000, 1_000_000
_PIXEL_DATA, _UNDEFINED = (0x7FE0, 0x0010), 0xFFFFFFFF
ITEM, _LAST = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000
_BEGINNINGS = (b"\xff\xd8\xff", CODESTREAM, b"\0\0\0\x0c")  # the last is that of JP2
_NUMBERS = (
    "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "BitsStored",
)  # fmt: skip
SYNTHETIC = 0x0008001C
"""The attribute Synthetic Data, whose name older dictionaries lack."""
# All of the header that is read; the rest, large private elements above all, is passed over.
_WANTED = (
    *_NUMBERS, "SOPClassUID", "Modality",
    "PhotometricInterpretation", "PlanarConfiguration", "HighBit", "PixelRepresentation",
    "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "ModalityLUTSequence", "VOILUTSequence", "BurnedInAnnotation",
    "FrameIncrementPointer", "FrameTime", "FrameTimeVector", "CineRate",
    "RecommendedDisplayFrameRate", "SequenceOfUltrasoundRegions", "PixelSpacing",
    "PixelAspectRatio", "ExtendedOffsetTable",
    *(f"{colour}PaletteColorLookupTable{part}" for colour in ("Red", "Green", "Blue")
      for part in ("Descriptor", "Data")),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)  # fmt: skip
OVERLAYS = tuple(0x60000010 + (group << 16) for group in range(0, 32, 2))
"""Tags of the rows of each overlay that a file can have."""


class Header(NamedTuple):
    """What a file says before its pixels.

    Attributes:
        elements: the pydicom dataset of what is wanted.
        syntax: UID of the transfer syntax.
        shape: (rows, columns, samples).
        frames: how many it should hold.
        bits: (allocated, stored) of a value.
        start: where the value of the pixel data begins.
        length: its length in bytes; None where it consists of items.
        order: "<" or ">": the order of bytes.
        vr: its value representation, "OB" or "OW"; "OW" where it is implicit.
    """

    elements: Any
    syntax: str
    shape: tuple[int, int, int]
    frames: int
    bits: tuple[int, int]
    start: int
    length: int | None
    order: str
    vr: str

    def text(self, keyword: str) -> str:
        return str(self.elements.get(keyword) or "").strip().upper()

    def number(self, keyword: str, default: int = 0) -> int:
        value = self.elements.get(keyword)
        return default if value is None else int(value)


class _Within(io.BufferedReader):
    """Reads no more than there is, and takes no memory for more."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self.end = self.seek(0, os.SEEK_END)
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:  # only pydicom's own inflating asks for all
            raise ValueError("its file meta information is too long")
        return super().read(min(size, max(0, self.end - self.tell())))


@contextmanager
def opened(path: Path) -> Iterator[_Within]:
    """The file, inflated where it is deflated."""
    with _Within(io.FileIO(path)) as file:
        head = file.read(4096)
        if _DEFLATED.encode() not in head:
            file.seek(0)
            yield file
            return
        start = 132 if head[128:132] == b"DICM" else 0
        file.seek(start + 12 + struct.unpack_from("<I", head, start + 8)[0])
        with tempfile.TemporaryFile(buffering=0) as plain:
            _inflate(path, file, plain)
            yield _Within(plain)


def _inflate(path: Path, file: io.BufferedReader, plain: Any) -> None:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    most = _MOST_INFLATED + 100 * path.stat().st_size
    while data := file.read(1 << 20):
        while data and not unpacker.eof:
            try:
                plain.write(unpacker.decompress(data, 1 << 24))
            except zlib.error:  # what comes before the damage is used
                return
            data = unpacker.unconsumed_tail
            if plain.tell() > most:
                raise InputError(f"{path} inflates to more than {most >> 20} MiB", "is it damaged?")


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings and tracebacks: what matters becomes an error or a note."""
    log = logging.getLogger("pydicom")
    propagate, log.propagate = log.propagate, False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.propagate = propagate


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Whatever pydicom raises about a damaged header names the file."""
    try:
        with quiet():
            yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as cause:
        reason = str(cause).partition("\n")[0] or type(cause).__name__
        raise InputError(
            f"cannot read {path} as DICOM: {reason}",
            "it may be damaged or cut off: copy or export it again",
        ) from cause


def read_header(path: Path) -> Header:
    """Read what comes before the pixels, and check it before anything is decoded.

    Raises:
        InputError: damaged, no pixel data, a size or a number of frames that is not read.
        UnsupportedFormat: pydicom is missing.
        OSError: the file cannot be opened.
    """
    try:
        import pydicom
    except ImportError as cause:
        hint = 'pip install "sonomime[dicom]"'
        raise UnsupportedFormat(f"{path} is DICOM, which needs pydicom", hint) from cause

    with refused(path), opened(path) as file:
        wanted: list[Any] = [*_WANTED, *OVERLAYS, SYNTHETIC]
        elements = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=wanted)
        kind = elements.get("SOPClassUID")
        if kind == _VOLUME:
            raise InputError(f"{path} is a 3D volume", "export single planes of it as a cine")
        implicit, little = elements.original_encoding
        order = "<" if little else ">"
        head = file.read(8)
        if len(head) < 8 or struct.unpack(f"{order}HH", head[:4]) != _PIXEL_DATA:
            what = getattr(kind, "name", "") or "an unknown kind"
            raise InputError(
                f"{path} holds no pixel data: it is {what}", "give a file with pictures or a cine"
            )
        explicit = not implicit and head[4:6] in (b"OB", b"OW", b"UN")
        (length,) = struct.unpack(f"{order}I", file.read(4) if explicit else head[4:])
        if "TransferSyntaxUID" in elements.file_meta:
            syntax = str(elements.file_meta.TransferSyntaxUID)
        else:
            syntax = "1.2.840.10008.1.2" + ("" if implicit else ".1" if little else ".2")
        rows, columns, samples, frames, allocated, stored = (
            int(elements.get(key) or 0) for key in _NUMBERS
        )
        check_size(path, columns, rows)
        header = Header(
            elements,
            syntax,
            (rows, columns, samples or 1),
            frames or 1,
            (allocated, stored or allocated),
            file.tell(),
            None if length == _UNDEFINED else length,
            order,
            "OB" if explicit and head[4:6] == b"OB" else "OW",
        )
    if not 1 <= header.frames <= _MOST_FRAMES:
        raise InputError(
            f"{path} says that it holds {header.frames} frames",
            f"up to {_MOST_FRAMES} frames are read; it may be damaged",
        )
    return header


class Span(NamedTuple):
    """From where to where something lies in the file."""

    begin: int
    end: int


def native_spans(file: _Within, header: Header, size: int) -> list[Span]:
    """Frames of `size` bytes each, as many as the file holds whole."""
    held = min(file.end - header.start, header.length or 0) // size
    last = header.start + min(header.frames, held) * size
    return [Span(at, at + size) for at in range(header.start, last, size)]


def frame_spans(path: Path, file: _Within, header: Header) -> list[Span]:
    """The items of each frame: by the table of offsets, if that is sound; else by how pictures
    begin."""
    file.seek(header.start)
    table, form = joined_items(file, header.start, header.start + 1), struct.Struct("<I")
    base = file.tell()
    if extended := header.elements.get("ExtendedOffsetTable"):
        table, form = extended, struct.Struct("<Q")
    if len(table) == header.frames * form.size:
        places = [base + at for (at,) in form.iter_unpack(table)]
        rising = all(a < b for a, b in pairwise(places))
        if rising and sum(_starts_item(file, place) for place in places) * 2 > len(places):
            ends = [*places[1:], file.end]
            return [Span(*ends) for ends in zip(places, ends, strict=True) if ends[0] < file.end]
    items = walk_items(path, file, header)
    begins = [item.begin for item in items]
    if len(items) != header.frames:
        begins = [begin for begin in begins if _starts_picture(file, begin)] or begins
    ends = [*begins[1:], items[-1].end] if items else []
    return [Span(*ends) for ends in zip(begins, ends, strict=True)]


def walk_items(path: Path, file: _Within, header: Header) -> list[Span]:
    """All items after the table of offsets, up to damage; the last may end after the file."""
    at, items = header.start, [Span(0, 0)]
    while len(items) <= _MOST_ITEMS:
        file.seek(at)
        head = file.read(8)
        if head[:4] != ITEM or len(head) < 8 or at >= file.end:
            return items[2:]
        items.append(Span(at, at + 8 + int.from_bytes(head[4:], "little")))
        at = items[-1].end
    raise InputError(f"{path} holds more than {_MOST_ITEMS} pieces", "it is damaged")


def _starts_item(file: _Within, at: int) -> bool:
    file.seek(at)
    return file.read(4) == ITEM


def _starts_picture(file: _Within, at: int) -> bool:
    file.seek(at + 8)
    return file.read(4).startswith(_BEGINNINGS)


def joined_items(file: _Within, begin: int, end: int) -> bytes:
    """The bytes of the items that begin between two places.

    Raises:
        ValueError: they are damaged or cut off.
    """
    file.seek(begin)
    parts: list[bytes] = []
    while file.tell() < end:
        head = file.read(8)
        if head[:4] == _LAST:
            break
        length = int.from_bytes(head[4:], "little")
        parts.append(file.read(length))
        if head[:4] != ITEM or len(parts[-1]) < length:
            raise ValueError("its data are damaged or cut off")
    return b"".join(parts)


class JoinedItems:
    """The values of the items of an open file as one file, for PyAV."""

    def __init__(self, file: BinaryIO, items: list[Span]) -> None:
        self._file, self._at = file, 0
        self._begins = [item.begin + 8 for item in items]
        ends = accumulate(item.end - item.begin - 8 for item in items)
        self._starts = [0, *ends]

    def read(self, size: int = -1) -> bytes:
        number = bisect(self._starts, self._at) - 1
        if number == len(self._begins) or size == 0:
            return b""
        left = self._starts[number + 1] - self._at
        self._file.seek(self._begins[number] + self._at - self._starts[number])
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self._starts[-1])[whence])
        return self._at

    def tell(self) -> int:
        return self._at
