"""What kind of media a file holds, which sizes are read, and whether a video is cut off.

Video decoders do not notice a missing end: the clip just looks shorter. So the length that a file
declares is compared with the length that it has.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from ..support.errors import InputError

MIN_SIDE, MAX_SIDE = 8, 16384
MAX_PIXELS = 64 << 20

IMAGE, VIDEO, DICOM, METAIMAGE, NRRD = "image", "video", "DICOM", "MetaImage", "NRRD"
HEIF = "HEIF or AVIF"
"""Kinds of files that are read."""

_ENDS = {
    IMAGE: (
        ".png", ".apng", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".j2k",
        ".pgm", ".ppm", ".pnm",
    ),
    VIDEO: (
        ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".gif",
        ".h264", ".264", ".hevc", ".265", ".mjpg", ".mjpeg", ".m2v", ".mts", ".m2ts", ".vob",
        ".3gp", ".flv", ".ogv", ".asf", ".ivf", ".nut",
    ),
    DICOM: (".dcm", ".dicom"),
    METAIMAGE: (".mha", ".mhd"),
    "NIfTI": (".nii", ".nii.gz"),
    HEIF: (".heic", ".heif", ".avif"),
    NRRD: (".nrrd", ".nhdr"),
}  # fmt: skip
"""How the names of each kind's files end; `readers.READERS` has who reads them, if anybody."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif",
                b"avis")  # fmt: skip
_IMAGE_MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*",
    b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
    *(b"P%d%c" % (kind, space) for kind in range(1, 7) for space in b" \t\r\n"),
)  # fmt: skip


def kind_of(path: Path) -> str:
    """IMAGE, VIDEO (or anything else, which the video reader refuses), or the name of another
    format; by content first and by name second.

    Raises:
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM":
        return DICOM
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return HEIF  # FFmpeg would read one tile of it
    if head.startswith(b"NRRD0"):
        return NRRD
    if head.startswith(b"ObjectType"):
        return METAIMAGE
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return IMAGE
    if head.startswith(_IMAGE_MAGIC) and path.suffix.lower() not in (".mjpg", ".mjpeg"):
        return IMAGE
    return kind_by_name(path) or VIDEO


def kind_by_name(path: Path) -> str | None:
    """The same by the file's name alone; None for a name that says nothing."""
    name = path.name.lower()
    return next((kind for kind, ends in _ENDS.items() if name.endswith(ends)), None)


def check_size(what: Path | str, width: int, height: int) -> None:
    """Refuse a picture that is too small to show anything or too large to be decoded safely.

    Raises:
        InputError: a side below 8 or above 16384 pixels, or more than 64 megapixels.
    """
    if width < MIN_SIDE or height < MIN_SIDE:
        raise InputError(
            f"{what} is {width} x {height} pixels, too small to be a picture",
            f"both sides have to be at least {MIN_SIDE} pixels",
        )
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{what} is {width} x {height} pixels, too large to be decoded safely",
            f"scale it down: at most {MAX_SIDE} pixels a side and {MAX_PIXELS >> 20} megapixels",
        )


def missing_bytes(path: Path) -> int:
    """How many bytes an MP4, Matroska or AVI file lacks, at least, of its declared length.

    0 when nothing is missing or no length is declared (transport streams, unfinished recordings).

    Raises:
        OSError: the file cannot be read.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        riff = head.startswith(b"RIFF")
        try:
            if head[4:8] in _MP4_BOXES:
                end = _mp4_end(file, length)
            elif head.startswith(b"\x1aE\xdf\xa3"):
                end = _matroska_end(file)
            elif riff and head[8:12] == b"AVI ":
                end = 8 + struct.unpack_from("<I", head, 4)[0]
            else:
                return 0
        except (struct.error, IndexError):
            return 0  # the header itself is damaged, which the video reader reports
    missing = max(0, end - length)
    return 0 if riff and missing == 8 else missing  # some writers count the first 8 bytes too


# Boxes that may follow each other at the top level; anything may come after another one.
_MP4_BOXES = frozenset(
    {b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"free", b"skip", b"wide", b"sidx", b"styp"}
)


def _mp4_end(file: BinaryIO, length: int) -> int:
    at = 0
    while at + 8 <= length:
        file.seek(at)
        header = file.read(16)
        size, box = struct.unpack_from(">I4s", header)
        if size == 1:
            (size,) = struct.unpack_from(">Q", header, 8)
        if box not in _MP4_BOXES or size < 8:  # a size of 0: up to the end of the file
            break
        at += size
    return at


def _matroska_end(file: BinaryIO) -> int:
    file.seek(4)
    file.seek(_matroska_length(file) or 0, 1)
    segment = file.read(4) == b"\x18\x53\x80\x67"
    size = _matroska_length(file)
    return file.tell() + size if segment and size is not None else 0


def _matroska_length(file: BinaryIO) -> int | None:
    """A length; None, all of its bits set, where it is not known."""
    first = file.read(1)
    width = 9 - first[0].bit_length()  # in bytes: the leading zeros count them
    if width > 8:
        raise IndexError
    mask = (1 << 7 * width) - 1
    size = int.from_bytes(first + file.read(width - 1), "big") & mask
    return size if size != mask else None
