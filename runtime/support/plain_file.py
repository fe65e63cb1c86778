"""Read an untrusted file of limited size; compute the digest of any file."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .errors import BundleError


def read_plain_file(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes; symbolic links are refused.

    Raises:
        BundleError: it is missing, cannot be read, is a link, a pipe or a folder, is too large, or
            grows while it is read.
    """

    def opener(name: str, flags: int) -> int:
        # O_NONBLOCK: a named pipe must not hang; a symbolic link could lead out of the bundle.
        return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)

    try:
        with open(path, "rb", opener=opener) as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise BundleError(f"{path} is not a plain file")
            if info.st_size > limit:
                raise BundleError(f"{path} is larger than {limit / (1 << 20):g} MiB")
            content = file.read(info.st_size + 1)  # not `limit`: memory for all of it is reserved
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else (error.strerror or "").lower()
        hint = "a bundle holds its manifest and every file that it names, as plain files"
        raise BundleError(f"{path}: cannot be read: {reason}", hint) from None
    if len(content) > info.st_size:
        raise BundleError(f"{path} grows while it is read", "wait until it is written")
    return content


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
