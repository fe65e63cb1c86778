"""Limits for zip archives (.pt, .npz) that somebody else may have made."""

from __future__ import annotations

import struct
import zipfile
import zlib
from lzma import LZMAError
from tokenize import TokenError

#: What reading a damaged .npz or .npy can raise.
DAMAGE = (
    EOFError, LZMAError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TokenError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def check_unpacked_size(archive: zipfile.ZipFile, most: int) -> None:
    """Refuse an archive whose members unpack to more than `most` bytes together.

    Raises:
        ValueError: with their size.
    """
    size = sum(member.file_size for member in archive.infolist())
    if size > most:
        raise ValueError(f"it unpacks to {size >> 20} MiB, at most {most >> 20} MiB are read")
