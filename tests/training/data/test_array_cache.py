"""The cache: one checked file an entry, the user's own folder, a size limit; never in the way."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from sonomime.runtime.support.errors import InputError, OutputError
from sonomime.training.data import array_cache
from sonomime.training.data.array_cache import Layout, cached_arrays

VALUES = np.arange(12).reshape(3, 4)


class Maker:
    """Makes entries, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def write(self, stream: BinaryIO) -> Layout:
        self.made += 1
        stream.write(VALUES.tobytes() + VALUES[0].tobytes())
        return [("<i8", (3, 4)), ("<i8", (4,))]

    def __call__(self, *facts: Any) -> int:
        """How often it was made after one more look at the entry of each of the facts."""
        for fact in facts or (0,):
            first, second = cached_arrays(fact, self.write)
            assert isinstance(first, np.memmap) and not first.flags.writeable
            np.testing.assert_array_equal(first, VALUES)
            np.testing.assert_array_equal(second, VALUES[0])
        return self.made


@pytest.fixture
def folder(own_cache: Path) -> Path:
    return own_cache / "sonomime" / "clips"


def test_an_entry_is_made_once_for_its_facts(folder: Path) -> None:
    maker = Maker()
    assert [maker(0), maker(0), maker(["a", 1]), maker(0)] == [1, 1, 2, 2]
    assert len(list(folder.iterdir())) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda entry: b"",
    "text": lambda entry: b"no array at all",
    "cut off": lambda entry: entry[:-1],
    "longer": lambda entry: entry + b"more",
    "a value": lambda entry: b"\1" + entry[1:],
    "a shape": lambda entry: entry.replace(b"[3, 4]", b"[4, 3]"),
    "a type": lambda entry: entry.replace(b"<i8", b"<f8"),
}


@pytest.mark.parametrize("damage", [*DAMAGE, "another's"])
def test_a_damaged_entry_is_made_again(damage: str, folder: Path) -> None:
    maker = Maker()
    maker()
    (entry,) = folder.iterdir()
    maker(1)
    (other,) = set(folder.iterdir()) - {entry}
    change = DAMAGE.get(damage, lambda entry: other.read_bytes())
    entry.write_bytes(change(entry.read_bytes()))
    assert [maker(), maker()] == [3, 3]


@pytest.mark.parametrize("kind", ["dangling link", "link to the right thing", "pipe"])
def test_links_and_pipes_are_replaced_and_not_followed(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    maker, other = Maker(), tmp_path / "other"
    maker()
    (entry,) = folder.iterdir()
    content = entry.read_bytes()
    entry.unlink()
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(other)
    if kind == "link to the right thing":
        other.write_bytes(content)
    assert maker() == 2
    assert entry.is_file() == (kind != "pipe") and not entry.is_symlink()
    assert other.exists() == (kind == "link to the right thing")
    assert not other.exists() or other.read_bytes() == content


def test_the_least_recently_used_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    maker(0)
    (entry,) = folder.iterdir()
    (folder / "a folder").mkdir()
    (folder / ".left.0123abcd.part.arrays").write_bytes(b"by a killed run")
    monkeypatch.setattr(array_cache, "MOST_BYTES", entry.stat().st_size * 5 // 2)
    maker(1)
    for age, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, ns=(age, age))
    maker(0)  # which makes it the youngest
    monkeypatch.setattr(array_cache, "_used", set())  # another process
    maker(2)
    assert len(list(folder.glob("*.arrays"))) == 2
    assert [maker(0), maker(2), maker(1)] == [3, 3, 4]


def test_what_this_process_uses_stays_above_the_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a data set larger than the limit would be decoded again in every run."""
    maker = Maker()
    monkeypatch.setattr(array_cache, "MOST_BYTES", 1)
    assert maker(0, 1, 0, 1) == 2
    monkeypatch.setattr(array_cache, "_used", set())
    assert maker(2) == 3
    assert len(list(folder.iterdir())) == 1


def full(path: Path | str = "") -> Any:
    raise OutputError(f"cannot write {path}: no space left")


def spoil(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir(parents=True)
    if how == "full":
        monkeypatch.setattr(array_cache, "atomic_path", full)
    elif how == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif how == "a file in the way":
        folder.write_text("in the way")
    elif how == "a link":
        (folder.parent / "elsewhere").mkdir()
        folder.symlink_to(folder.parent / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o755 if how == "another user's" else 0o770)
    if how == "another user's":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        if not os.geteuid():  # root's folders are trusted
            os.chown(folder, 54321, 54321)


@pytest.mark.parametrize(
    "how",
    ["full", "no home", "a file in the way", "a link", "others can write", "another user's"],
)
def test_a_run_goes_on_without_the_cache_and_names_it_once(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(array_cache, "_warned", set())
    spoil(how, folder, monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert Maker()(0, 1) == 2
    (warning,) = caplog.messages
    assert "cache" in warning and " -o" not in warning
    assert how == "no home" or str(folder) in warning
    assert not folder.is_dir() or not list(folder.iterdir())


def test_nowhere_to_write_is_an_output_error_that_names_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_space() -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_cache, "atomic_path", full)
    monkeypatch.setattr("tempfile.TemporaryFile", no_space)
    with pytest.raises(OutputError) as caught:
        Maker()()
    assert "XDG_CACHE_HOME" in caught.value.hint and " -o" not in caught.value.hint


def test_errors_of_the_maker_pass_and_leave_nothing(folder: Path) -> None:
    def broken(stream: BinaryIO) -> Layout:
        stream.write(b"half")
        raise InputError("a broken clip")

    with pytest.raises(InputError):
        cached_arrays(0, broken)
    assert list(folder.iterdir()) == []
