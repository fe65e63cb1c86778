"""A file or folder appears under its final name only when it is complete.

Writers work on a temporary path in the same folder. On success it is flushed to the disk and
renamed; on any error, Ctrl-C included, it is removed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from .errors import WRITE_ERRNOS, Busy, OutputError, output_errors


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/sonomime, by default ~/.cache/sonomime.

    A relative XDG_CACHE_HOME is ignored, as the XDG specification asks.

    Raises:
        OutputError: there is no home folder and no XDG_CACHE_HOME.
    """
    for home in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(home):
            return Path(home) / "sonomime"
    raise OutputError("there is no home folder for the cache", "set XDG_CACHE_HOME to a folder")


def atomic_path(final: Path | str) -> AbstractContextManager[Path]:
    """Yield an empty temporary file beside `final`, of the same suffix, that becomes `final`.

    Missing parent folders are made. On success the file is synced and replaces `final`; on any
    exception, KeyboardInterrupt included, it is removed and `final` is as it was.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or `final` exists and is not a
            regular file. Other exceptions of the block pass unchanged.
    """
    return _appearing(final, is_folder=False)


def atomic_folder(final: Path | str) -> AbstractContextManager[Path]:
    """The same for a folder; `final` must not exist yet, or be an empty folder.

    Raises:
        OutputError: `final` is a file or a folder that is not empty; the place cannot be written;
            the disk is full. Other exceptions of the block pass unchanged.
    """
    return _appearing(final, is_folder=True)


def refuse_cut_off(final: Path | str) -> None:
    """OutputError if a NAME.part lies there: all that is left of something, never written over."""
    target = Path(os.path.realpath(final))
    growing = target.with_name(target.name + ".part")
    if growing.exists():
        what = f"cannot write {final}: {growing} is there, from a recording that was cut off"
        raise OutputError(what, "it can be played: rename or remove it")


@contextmanager
def growing_path(final: Path | str) -> Iterator[Path]:
    """Yield NAME.part beside `final`, which becomes `final` at the end: for a file that is of use
    before it is whole. On an error or a kill it stays, unless it is empty.

    Raises:
        OutputError: as `atomic_path`; or there is a NAME.part already, which is not written over.
    """
    target = Path(os.path.realpath(final))
    growing = target.with_name(target.name + ".part")
    refuse_cut_off(final)
    with output_errors(final):
        target.parent.mkdir(parents=True, exist_ok=True)
        _refuse_occupied(final, target, is_folder=False)
        growing.touch(exist_ok=False)
    try:
        with output_errors(final, WRITE_ERRNOS):
            yield growing
        with output_errors(final):
            _fsync(growing)
            os.replace(growing, target)
            _fsync(target.parent)
    finally:
        with suppress(OSError):
            if growing.stat().st_size == 0:
                growing.unlink()


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
def locked(folder: Path) -> Iterator[None]:
    """Let no other process write into the folder, which is made if need be, and removed if nothing
    was then written there.

    Raises:
        Busy: another process writes there.
        OutputError: it cannot be made.
    """
    with output_errors(folder):
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                made = False  # the other one's
                hint = "wait until it is done, or choose another folder with -o"
                raise Busy(f"{folder}: another sonomime is writing there", hint) from None
        if not os.fstat(descriptor).st_nlink:  # between our two steps
            raise OutputError(f"{folder}: another sonomime has removed it", "start again")
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        os.close(descriptor)


@contextmanager
def _appearing(final: Path | str, is_folder: bool) -> Iterator[Path]:
    target = Path(os.path.realpath(final))  # a link stays, and what it leads to is replaced
    # Writers choose their format by the suffix; the dot hides the file from listings; a long name
    # is cut, because a file name has at most 255 bytes.
    stem = os.fsencode(target.stem)[:80].decode(errors="ignore")
    temporary = target.with_name(f".{stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:  # at once: a signal may come between making it and yielding it
        with output_errors(final):
            target.parent.mkdir(parents=True, exist_ok=True)
            _refuse_occupied(final, target, is_folder)
            # Now, to fail before the work and not after it.
            temporary.mkdir() if is_folder else temporary.touch(exist_ok=False)
        with output_errors(final, WRITE_ERRNOS):
            yield temporary
        with output_errors(final):
            for entry in (*temporary.rglob("*"), temporary):
                _fsync(entry)
            os.replace(temporary, target)  # fails where a folder filled up meanwhile
            _fsync(target.parent)
    finally:
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def _refuse_occupied(final: Path | str, target: Path, is_folder: bool) -> None:
    hint = "choose another name"
    if target.exists() and not (target.is_dir() if is_folder else target.is_file()):
        fault = f"there is something of that name, not a {'folder' if is_folder else 'file'}"
    elif is_folder and target.exists() and any(target.iterdir()):
        fault, hint = "it exists and is not empty", f"remove it, or {hint}"
    else:
        return
    raise OutputError(f"cannot write {final}: {fault}", hint)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
