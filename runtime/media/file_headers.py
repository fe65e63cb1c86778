"""What a file is and how large it claims to be, told from its bytes before any decoder sees it.

Decoders trust headers: a 1 kB picture that claims 20000 x 20000 pixels costs 400 MB, and a video
cut off in the middle often just looks short. Both are found here, by what the files declare.
"""

from __future__ import annotations

import struct
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from ..support.errors import InputError

MIN_SIDE = 8
MAX_SIDE = 16384
MAX_PIXELS = 64 * 1024 * 1024

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".gif"}
)
#: Formats that ultrasound comes in and that no reader here understands, by what people call them.
UNREADABLE_SUFFIXES = {
    ".dcm": "DICOM",
    ".dicom": "DICOM",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
}

_MOTION_JPEG_SUFFIXES = frozenset({".mjpg", ".mjpeg"})
_DICOM_MAGIC_AT = 128


class Kind(Enum):
    """What a file holds, as far as its first bytes tell."""

    IMAGE = "image"
    VIDEO = "video"  # or anything else: the video reader is the one to say that it is not
    DICOM = "DICOM"
    META_IMAGE = "MetaImage"
    NIFTI = "NIfTI"
    NRRD = "NRRD"

    @property
    def readable(self) -> bool:
        return self in (Kind.IMAGE, Kind.VIDEO)


def kind_of(path: Path) -> Kind:
    """Image, video or a format without a reader, by content first and by name second.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(_DICOM_MAGIC_AT + 4)
    if head[_DICOM_MAGIC_AT:] == b"DICM":
        return Kind.DICOM
    if _is_image(head) and path.suffix.lower() not in _MOTION_JPEG_SUFFIXES:
        return Kind.IMAGE
    if called := unreadable_format(path):
        return Kind(called)
    return Kind.IMAGE if path.suffix.lower() in IMAGE_SUFFIXES else Kind.VIDEO


def unreadable_format(path: Path) -> str | None:
    """What a format that ultrasound comes in and that has no reader is called, told by the name."""
    name = path.name.lower()
    return next((c for end, c in UNREADABLE_SUFFIXES.items() if name.endswith(end)), None)


def _is_image(head: bytes) -> bool:
    return head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*"))


def check_size(path: Path | str, width: int, height: int) -> None:
    """Refuse what is too small to hold a picture or too large to be decoded safely.

    Raises:
        InputError: a side below 8 or above 16384 pixels, or more than 64 megapixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise InputError(
            f"{path} is {width} x {height} pixels, too small to be a picture",
            f"both sides have to be at least {MIN_SIDE} pixels",
        )
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{path} is {width} x {height} pixels, too large to be decoded safely",
            f"scale it down: at most {MAX_SIDE} pixels a side and {MAX_PIXELS // 2**20} megapixels",
        )


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) in pixels from the header of a PNG, JPEG, BMP or TIFF, or None if unknown."""
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        elif data.startswith(b"BM"):
            width, height = _bmp_size(data)
        elif data.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(data)
        else:
            return None
    except struct.error:
        return None
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or no payload
            at += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _bmp_size(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:  # the header of OS/2
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # a negative height means rows from the top


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    sides: dict[int, int] = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, field = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):
            (sides[tag],) = struct.unpack_from(
                order + ("H" if field == 3 else "I"), data, entry + 8
            )
    return (sides[256], sides[257]) if len(sides) == 2 else None


def image_is_cut_off(data: bytes) -> bool:
    """Whether a PNG or JPEG lacks its end mark, so that a decoder would fill the rest with grey."""
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" not in data
    if data.startswith(b"\xff\xd8"):
        # Looked for after the scan begins: a preview inside the metadata has an end mark as well.
        return b"\xff\xd9" not in data[max(data.rfind(b"\xff\xda"), 0) :]
    return False


def missing_bytes(path: Path) -> int:
    """How many bytes an MP4, Matroska or AVI file lacks of the length that it declares, at least.

    0 when nothing is missing or nothing is declared: transport streams and recordings in progress
    say no length.

    Raises:
        OSError: the file cannot be read.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        try:
            if head[4:8] in _MP4_BOXES:
                end = _mp4_end(file, length)
            elif head.startswith(b"\x1aE\xdf\xa3"):
                end = _matroska_end(file)
            elif head.startswith(b"RIFF") and head[8:12] == b"AVI ":
                end = 8 + struct.unpack_from("<I", head, 4)[0]
            else:
                return 0
        except (struct.error, IndexError):
            return 0  # the header itself is damaged: the reader will say so
    return max(0, end - length)


# Only boxes that writers put at the top level: what follows them may be anything.
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"sidx", b"styp"}
)


def _mp4_end(file: BinaryIO, length: int) -> int:
    at = 0
    while at + 8 <= length:
        file.seek(at)
        header = file.read(16)
        size, box = struct.unpack_from(">I4s", header)
        if box not in _MP4_BOXES or size == 0:  # 0: up to the end of the file
            break
        if size == 1:
            (size,) = struct.unpack_from(">Q", header, 8)
        if size < 8:
            break
        at += size
    return at


def _matroska_number(file: BinaryIO, keep_marker: bool) -> tuple[int, bool]:
    """An EBML number and whether all its bits are set, which as a length means "unknown"."""
    first = file.read(1)[0]
    width = 9 - first.bit_length()
    if width > 8:
        raise IndexError
    raw = int.from_bytes(bytes([first]) + file.read(width - 1), "big")
    mask = (1 << (7 * width)) - 1
    return (raw if keep_marker else raw & mask), raw & mask == mask


def _matroska_end(file: BinaryIO) -> int:
    file.seek(4)
    header_size, _ = _matroska_number(file, keep_marker=False)
    file.seek(header_size, 1)
    identifier, _ = _matroska_number(file, keep_marker=True)
    size, unknown = _matroska_number(file, keep_marker=False)
    if identifier != 0x18538067 or unknown:
        return 0
    return file.tell() + size
