"""A file or folder appears under its final name only when it is whole.

Writers work on a temporary path in the same folder; when all went well it is flushed to the disk
and renamed, and on any error, Ctrl-C included, it is removed.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import WRITE_ERRNOS, OutputError, output_error, output_errors


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sonomime, by default ~/.cache/sonomime; a relative XDG_CACHE_HOME counts as
    none, as its standard says."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        raise OutputError("there is no home folder for the cache", "set XDG_CACHE_HOME to a folder")
    return Path(home) / "sonomime"


def _temporary_name(final: Path) -> Path:
    # The suffix stays, because writers choose their format by it; the dot hides it from listings.
    # Long names are cut, so that the addition cannot exceed the 255 bytes of a file name.
    return final.with_name(f".{final.stem[:80]}.{secrets.token_hex(4)}.part{final.suffix}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(final: Path | str) -> Path:
    """Follow links (the target is replaced, not the link) and make the parent folder."""
    resolved = Path(os.path.realpath(final))
    with output_errors(final):
        resolved.parent.mkdir(parents=True, exist_ok=True)
    return resolved


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Yield an empty temporary file beside `final`, of the same suffix, that becomes `final`.

    Missing parent folders are made. On success the file is synced and replaces `final`; on any
    exception, KeyboardInterrupt included, it is removed and `final` is as it was.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or `final` is something other
            than a regular file. Other exceptions of the block pass unchanged.
    """
    target = _prepare(final)
    if target.exists() and not target.is_file():
        raise OutputError(
            f"cannot write {final}: there is something of that name that is not a file",
            "choose another name with -o",
        )
    temporary = _temporary_name(target)
    with output_errors(final):
        # Made at once, so that an unwritable folder is found before the work, not after it.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        try:
            yield temporary
        except OSError as cause:
            if cause.errno in WRITE_ERRNOS:
                raise output_error(final, cause) from cause
            raise
        with output_errors(final):
            _fsync(temporary)
            os.replace(temporary, target)
            _fsync(target.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(final: Path | str, data: bytes) -> None:
    """Write `data` to `final`, whole or not at all.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(final) as temporary, output_errors(final):
        temporary.write_bytes(data)


def atomic_write_text(final: Path | str, text: str) -> None:
    """Write `text` as UTF-8 to `final`, whole or not at all; newlines are kept as they are.

    Raises:
        OutputError: as `atomic_path`.
    """
    atomic_write_bytes(final, text.encode("utf-8"))


def _refuse_occupied(shown: Path | str, target: Path, replace: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(
            f"cannot write the folder {shown}: there is a file of that name",
            "choose another name with -o",
        )
    if not replace and target.exists() and any(target.iterdir()):
        raise OutputError(
            f"the folder {shown} exists and is not empty",
            "remove it, or choose another name with -o",
        )


@contextmanager
def atomic_folder(final: Path | str, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final` that becomes `final`.

    On success all its files are synced and it takes its name; on any exception, KeyboardInterrupt
    included, it is removed and `final` is as it was.

    Args:
        final: the folder to make; missing parents are made.
        replace: let a folder that exists and is not empty be replaced, with all that is in it.

    Raises:
        OutputError: `final` is a file, or a folder that is not empty while `replace` is False; the
            place cannot be written; the disk is full. Other exceptions of the block pass unchanged.
    """
    target = _prepare(final)
    with output_errors(final):
        _refuse_occupied(final, target, replace)
        temporary = _temporary_name(target)
        temporary.mkdir()
    try:
        try:
            yield temporary
        except OSError as cause:
            if cause.errno in WRITE_ERRNOS:
                raise output_error(final, cause) from cause
            raise
        with output_errors(final):
            for entry in sorted(temporary.rglob("*")):
                _fsync(entry)
            _fsync(temporary)
            _refuse_occupied(final, target, replace)
            _take_name(temporary, target)
            _fsync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_name(temporary: Path, target: Path) -> None:
    """Rename a folder onto `target`. A non-empty folder cannot be replaced in one step: the old one
    steps aside first, and comes back when the rename fails."""
    if not target.exists() or not any(target.iterdir()):
        os.replace(temporary, target)
        return
    aside = _temporary_name(target)
    os.replace(target, aside)
    try:
        os.replace(temporary, target)
    except BaseException:
        os.replace(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)
