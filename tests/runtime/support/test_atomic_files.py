"""Files and folders appear whole under their names, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sonomime.runtime.support import atomic_files as files
from sonomime.runtime.support.errors import InputError, OutputError

FAILURES = [ValueError("mine"), KeyboardInterrupt(), InputError("bad"), SystemExit(3)]


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_file_takes_its_name_when_it_is_done(tmp_path: Path) -> None:
    final = tmp_path / "new" / "out.mp4"
    with files.atomic_path(final) as temporary:
        assert temporary.parent == final.parent
        assert temporary.suffix == ".mp4"
        temporary.write_bytes(b"all of it")
        assert not final.exists()
    assert final.read_bytes() == b"all of it"
    assert names(final.parent) == {"out.mp4"}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_failure_leaves_nothing_and_changes_nothing(
    tmp_path: Path, failure: BaseException
) -> None:
    final = tmp_path / "out.bin"
    final.write_bytes(b"old")
    with pytest.raises(type(failure)), files.atomic_path(final) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    assert final.read_bytes() == b"old"
    assert names(tmp_path) == {"out.bin"}


def test_a_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    files.atomic_write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_text_is_written_as_utf8_with_its_own_newlines(tmp_path: Path) -> None:
    files.atomic_write_text(tmp_path / "t", "Grüße\r\n")
    assert (tmp_path / "t").read_bytes() == "Grüße\r\n".encode()


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")
    files.atomic_write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_what_is_not_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(OutputError, match=name):
            files.atomic_write_bytes(tmp_path / name, b"")
    assert names(tmp_path) == {"folder", "pipe"}


def test_a_parent_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as caught:
        files.atomic_write_bytes(tmp_path / "file" / "out", b"")
    assert caught.value.hint


def test_the_longest_name_that_can_be_had_works(tmp_path: Path) -> None:
    final = tmp_path / ("n" * 251 + ".mp4")
    files.atomic_write_bytes(final, b"x")
    assert final.read_bytes() == b"x"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_at_the_end_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    final = tmp_path / "out.bin"
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError, match="No space left") as caught:
        files.atomic_write_bytes(final, b"data")
    assert str(final) in caught.value.message
    assert names(tmp_path) == set()


def test_a_full_disk_in_the_middle_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError), files.atomic_path(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failed_read_inside_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.atomic_path(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()
    assert names(tmp_path) == set()


def test_a_folder_takes_its_name_when_it_is_done(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "bundle"
    with files.atomic_folder(final) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "a.txt").write_text("a")
        assert not final.exists()
    assert (final / "sub" / "a.txt").read_text() == "a"
    assert names(final.parent) == {"bundle"}


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_that_fails_leaves_nothing(
    tmp_path: Path, failure: BaseException, replace: bool
) -> None:
    final = tmp_path / "bundle"
    final.mkdir()
    if replace:
        (final / "old").touch()
    with pytest.raises(type(failure)), files.atomic_folder(final, replace=replace) as temporary:
        (temporary / "new").touch()
        raise failure
    assert names(tmp_path) == {"bundle"}
    assert names(final) == ({"old"} if replace else set())


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    final = tmp_path / "bundle"
    final.mkdir()
    with files.atomic_folder(final) as temporary:
        (temporary / "one").touch()
    with pytest.raises(OutputError, match="not empty"), files.atomic_folder(final):
        raise AssertionError("the block must not be entered")
    with files.atomic_folder(final, replace=True) as temporary:
        (temporary / "two").touch()
    assert names(final) == {"two"}
    assert names(tmp_path) == {"bundle"}


def test_a_folder_that_fills_up_meanwhile_is_not_lost(tmp_path: Path) -> None:
    final = tmp_path / "bundle"
    with pytest.raises(OutputError, match="not empty"), files.atomic_folder(final) as temporary:
        (temporary / "ours").touch()
        final.mkdir()
        (final / "theirs").touch()
    assert names(final) == {"theirs"}
    assert names(tmp_path) == {"bundle"}


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bundle").touch()
    with pytest.raises(OutputError, match="a file of that name"):
        files.atomic_folder(tmp_path / "bundle", replace=True).__enter__()


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "bundle"
    final.mkdir()
    (final / "old").touch()
    rename = os.replace
    calls: list[str] = []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(str(source))
        if len(calls) == 2:
            raise OSError(errno.EACCES, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(OutputError), files.atomic_folder(final, replace=True) as temporary:
        (temporary / "new").touch()
    assert names(final) == {"old"}
    assert names(tmp_path) == {"bundle"}
