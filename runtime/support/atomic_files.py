"""A file or folder appears under its final name only when it is complete.

Writers work on a temporary path in the same folder. On success it is flushed to the disk and
renamed; on any error, Ctrl-C included, it is removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import WRITE_ERRNOS, OutputError, output_errors


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sonomime, by default ~/.cache/sonomime.

    A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.

    Raises:
        OutputError: there is no home folder and no XDG_CACHE_HOME.
    """
    home = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.cache")
    if not os.path.isabs(home):
        raise OutputError("there is no home folder for the cache", "set XDG_CACHE_HOME to a folder")
    return Path(home) / "sonomime"


@contextmanager
def atomic_path(final: Path | str) -> Iterator[Path]:
    """Yield an empty temporary file beside `final`, of the same suffix, that becomes `final`.

    Missing parent folders are made. On success the file is synced and replaces `final`; on any
    exception, KeyboardInterrupt included, it is removed and `final` is as it was.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or `final` exists and is not a
            regular file. Other exceptions of the block pass unchanged.
    """
    target = _resolved(final)
    with output_errors(final):
        occupied = target.exists() and not target.is_file()
    if occupied:
        raise OutputError(
            f"cannot write {final}: there is something of that name that is not a file",
            "choose another name with -o",
        )
    with _temporary(final, target, lambda path: path.touch(exist_ok=False)) as temporary:
        yield temporary
        with output_errors(final):
            _fsync(temporary)
            os.replace(temporary, target)
            _fsync(target.parent)


def atomic_write_bytes(final: Path | str, data: bytes) -> None:
    """Write `data` to `final`, completely or not at all.

    Raises:
        OutputError: as `atomic_path`.
    """
    with atomic_path(final) as temporary, output_errors(final):
        temporary.write_bytes(data)


def atomic_write_text(final: Path | str, text: str) -> None:
    """Write `text` to `final` as UTF-8, newlines unchanged, completely or not at all.

    Raises:
        OutputError: as `atomic_path`.
    """
    atomic_write_bytes(final, text.encode("utf-8"))


@contextmanager
def atomic_folder(final: Path | str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `final`, new or empty, that becomes `final`.

    Missing parent folders are made. On success all its files are synced and it takes its name; on
    any exception, KeyboardInterrupt included, it is removed and `final` is as it was.

    Raises:
        OutputError: `final` is a file or a folder that is not empty; the place cannot be written;
            the disk is full. Other exceptions of the block pass unchanged.
    """
    target = _resolved(final)
    _refuse_occupied(final, target)
    with _temporary(final, target, Path.mkdir) as temporary:
        yield temporary
        with output_errors(final):
            for entry in (*temporary.rglob("*"), temporary):
                _fsync(entry)
            _refuse_occupied(final, target)
            os.replace(temporary, target)
            _fsync(target.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no other process write into the folder, which is made if need be.

    Raises:
        OutputError: another process writes there; it cannot be made.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "wait until it is done, or choose another folder with -o"
            raise OutputError(f"{folder}: another sonomime is writing there", hint) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def _resolved(final: Path | str) -> Path:
    """Follow links, so that the target is replaced, not the link; make the parent folder."""
    resolved = Path(os.path.realpath(final))
    with output_errors(final):
        resolved.parent.mkdir(parents=True, exist_ok=True)
    return resolved


@contextmanager
def _temporary(final: Path | str, target: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A temporary path beside `target`, made at once to fail before the work, not after it."""
    temporary = _temporary_name(target)
    try:  # at once: a signal may come between making it and yielding it
        with output_errors(final):
            make(temporary)
        with output_errors(final, WRITE_ERRNOS):
            yield temporary
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def _temporary_name(target: Path) -> Path:
    # Writers choose their format by the suffix; the dot hides the file from listings; a long name
    # is cut, because a file name has at most 255 bytes.
    stem = os.fsencode(target.stem)[:80].decode(errors="ignore")
    return target.with_name(f".{stem}.{secrets.token_hex(4)}.part{target.suffix}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_occupied(final: Path | str, target: Path) -> None:
    with output_errors(final):
        if target.exists() and not target.is_dir():
            fault = "there is a file of that name"
        elif target.exists() and any(target.iterdir()):
            fault = "it exists and is not empty"
        else:
            return
    raise OutputError(
        f"cannot write the folder {final}: {fault}", "remove it, or choose another name with -o"
    )
