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


def test_an_entry_is_made_once_for_its_facts(own_cache: Path) -> None:
    maker = Maker()
    assert [maker(0), maker(0), maker(["a", 1]), maker(0)] == [1, 1, 2, 2]
    assert len(list(own_cache.iterdir())) == 2
    assert own_cache.stat().st_mode & 0o777 == 0o700


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda entry: b"",
    "text": lambda entry: b"no array at all",
    "cut off": lambda entry: entry[:-1],
    "longer": lambda entry: entry + b"more",
    "a value": lambda entry: b"\1" + entry[1:],
    "a shape": lambda entry: entry.replace(b"[3, 4]", b"[4, 3]"),
    "a type": lambda entry: entry.replace(b"<i8", b"<f8"),
}


@pytest.mark.parametrize("how", [*DAMAGE, "another's", "dangling link", "link", "pipe"])
def test_an_entry_that_is_damaged_or_no_file_is_made_again_and_never_followed(
    how: str, own_cache: Path, tmp_path: Path
) -> None:
    maker, outside, nowhere = Maker(), tmp_path / "outside", tmp_path / "nowhere"
    maker(0)
    (entry,) = own_cache.iterdir()
    maker(1)
    (other,) = set(own_cache.iterdir()) - {entry}
    outside.write_bytes(whole := entry.read_bytes())
    entry.unlink()
    if how == "pipe":
        os.mkfifo(entry)
    elif "link" in how:
        entry.symlink_to(outside if how == "link" else nowhere)
    else:
        entry.write_bytes(other.read_bytes() if how == "another's" else DAMAGE[how](whole))
    assert maker() == 3
    assert how == "pipe" or maker() == 3
    assert not entry.is_symlink() and not nowhere.exists() and outside.read_bytes() == whole


def test_the_least_recently_used_go_first(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    maker(0)
    (entry,) = own_cache.iterdir()
    (own_cache / "a folder").mkdir()
    (own_cache / ".left.0123abcd.part.arrays").write_bytes(b"by a killed run")
    monkeypatch.setattr(array_cache, "MOST_BYTES", entry.stat().st_size * 5 // 2)
    maker(1)
    for age, path in enumerate(sorted(own_cache.iterdir())):
        os.utime(path, ns=(age, age))
    maker(0)  # which makes it the youngest
    monkeypatch.setattr(array_cache, "_used", set())  # another process
    maker(2)
    assert len(list(own_cache.glob("*.arrays"))) == 2
    assert [maker(0), maker(2), maker(1)] == [3, 3, 4]


def test_what_this_process_uses_stays_above_the_limit(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a data set larger than the limit would be decoded again in every run."""
    maker = Maker()
    monkeypatch.setattr(array_cache, "MOST_BYTES", 1)
    assert maker(0, 1, 0, 1) == 2
    monkeypatch.setattr(array_cache, "_used", set())
    assert maker(2) == 3
    assert len(list(own_cache.iterdir())) == 1


def full(path: Path | str = "") -> Any:
    raise OutputError(f"cannot write {path}: no space left")


@pytest.mark.parametrize("how", ["full", "no home", "file", "link", "others", "another user"])
def test_a_run_goes_on_without_the_cache_and_names_it_once(
    how: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(array_cache, "_warned", set())
    own_cache.parent.mkdir(parents=True)
    if how == "full":
        monkeypatch.setattr(array_cache, "atomic_path", full)
    elif how == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif how == "file":
        own_cache.write_text("in the way")
    elif how == "link":
        own_cache.symlink_to(own_cache.parent)
    else:
        own_cache.mkdir(mode=0o700)
        own_cache.chmod(0o755 if how == "another user" else 0o770)
    if how == "another user":
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        if not os.geteuid():  # root's folders are trusted
            os.chown(own_cache, 54321, 54321)
    with caplog.at_level(logging.WARNING):
        assert Maker()(0, 1) == 2
    (warning,) = caplog.messages
    assert "cache" in warning and " -o" not in warning
    assert how == "no home" or str(own_cache) in warning
    assert not list(own_cache.parent.rglob("*.arrays"))


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


def test_errors_of_the_maker_pass_and_leave_nothing(own_cache: Path) -> None:
    def broken(stream: BinaryIO) -> Layout:
        stream.write(b"half")
        raise InputError("a broken clip")

    with pytest.raises(InputError):
        cached_arrays(0, broken)
    assert list(own_cache.iterdir()) == []
