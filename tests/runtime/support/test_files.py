"""Files and folders appear complete under their names, or not at all; foreign ones have limits."""

from __future__ import annotations

import errno
import os
import pwd
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sonomime.runtime.support import atomic_files as files
from sonomime.runtime.support.errors import BundleError, InputError, OutputError, output_errors
from sonomime.runtime.support.plain_file import read_plain_file

Atomic = Callable[[Path], AbstractContextManager[Path]]


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_file_or_folder_takes_its_name_when_it_is_done(tmp_path: Path) -> None:
    final = tmp_path / "new" / ("n" * 251 + ".mp4")  # the longest possible name
    with files.atomic_path(final) as temporary:
        assert temporary.parent == final.parent and temporary.suffix == ".mp4"
        temporary.write_bytes(b"all of it")
        assert not final.exists()
    assert final.read_bytes() == b"all of it"
    folder = tmp_path / "new" / "bundle"
    folder.mkdir()  # empty
    with files.atomic_folder(folder) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a.txt").write_text("a")
        assert names(folder) == set()
    assert (folder / "sub" / "a.txt").read_text() == "a"
    assert names(final.parent) == {final.name, "bundle"}


def test_permissions_are_the_usual_text_is_utf8_and_a_link_stays(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    (tmp_path / "link").symlink_to("usual")
    files.atomic_write_text(tmp_path / "ours", "Grüße\r\n")
    files.atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "ours").read_bytes() == "Grüße\r\n".encode()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert (tmp_path / "link").is_symlink() and (tmp_path / "usual").read_bytes() == b"new"


@pytest.mark.parametrize(
    "failure",
    # A read that fails is not blamed on the output.
    [KeyboardInterrupt(), InputError("bad"), SystemExit(3), FileNotFoundError(errno.ENOENT, "")],
    ids=lambda failure: type(failure).__name__,
)
def test_a_failure_leaves_nothing_and_changes_nothing(
    tmp_path: Path, failure: BaseException
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(type(failure)), files.atomic_path(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise failure
    with pytest.raises(type(failure)), files.atomic_folder(tmp_path / "folder") as temporary:
        (temporary / "new").touch()
        raise failure
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize(
    ("atomic", "name"),
    [
        (files.atomic_path, "folder"),
        (files.atomic_path, "pipe"),
        (files.atomic_path, "file/below"),
        (files.atomic_folder, "file"),
        (files.atomic_folder, "folder"),  # not empty
        (files.atomic_folder, "file/below"),
        (files.atomic_path, "n" * 300),
        (files.atomic_folder, "n" * 300),
    ],
)
def test_an_impossible_or_occupied_name_is_refused_at_once(
    tmp_path: Path, atomic: Atomic, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match=name) as caught, atomic(tmp_path / name):
        raise AssertionError("the block must not be entered")
    assert caught.value.hint
    assert names(tmp_path) == {"folder", "file", "pipe"}
    assert names(tmp_path / "folder") == {"mine"}


def test_a_folder_that_fills_up_meanwhile_is_not_lost(tmp_path: Path) -> None:
    final = tmp_path / "bundle"
    with pytest.raises(OutputError, match="not empty"), files.atomic_folder(final) as temporary:
        (temporary / "ours").touch()
        final.mkdir()
        (final / "theirs").touch()
    assert names(final) == {"theirs"}
    assert names(tmp_path) == {"bundle"}


@pytest.mark.parametrize("atomic", [files.atomic_path, files.atomic_folder])
@pytest.mark.parametrize("step", ["fsync", "replace", "the block"])
def test_a_full_disk_is_an_output_error_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atomic: Atomic, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step != "the block":
        monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError) as caught, atomic(tmp_path / "out.bin"):
        if step == "the block":
            full()
    assert str(tmp_path / "out.bin") in caught.value.message and "space" in caught.value.hint
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("code", "word"),
    [(errno.EDQUOT, "quota"), (errno.EFBIG, "limit"), (errno.EROFS, "another place")],
)
def test_a_failed_write_names_the_file_and_what_to_do(code: int, word: str) -> None:
    cause = OSError(code, "system's words")
    with pytest.raises(OutputError) as caught, output_errors("out.mp4"):
        raise cause
    assert "out.mp4" in caught.value.message and "system's words" in caught.value.message
    assert word in caught.value.hint
    assert caught.value.__cause__ is cause


def test_the_cache_is_below_the_caches_or_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert files.cache_folder() == tmp_path / ".cache" / "sonomime"

    def no_entry(_: object) -> None:
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    with pytest.raises(OutputError) as caught:
        files.cache_folder()
    assert "XDG_CACHE_HOME" in caught.value.hint
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "sonomime"


@pytest.mark.parametrize("name", ["missing", "link", "pipe", "folder", "large", "endless"])
def test_what_is_not_a_plain_file_within_the_limit_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "large").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    path = Path("/dev/zero") if name == "endless" else tmp_path / name
    with pytest.raises(BundleError, match=path.name):
        read_plain_file(path, 4)


def test_a_small_file_takes_little_memory_and_may_not_grow_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_plain_file(tmp_path / "a", 8 << 30) == b"small"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    fstat = os.fstat

    def then_grow(handle: int) -> os.stat_result:
        info = fstat(handle)
        with (tmp_path / "a").open("ab") as file:
            file.write(b"34")
        return info

    monkeypatch.setattr(os, "fstat", then_grow)
    with pytest.raises(BundleError, match="grows"):
        read_plain_file(tmp_path / "a", 100)
