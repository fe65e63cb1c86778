"""The cache: one checked file an entry, the user's own folder, a size limit; never in the way."""

from __future__ import annotations

import errno
import io
import logging
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from sonomime.runtime.support.errors import InputError, OutputError
from sonomime.training.data import array_cache
from sonomime.training.data.array_cache import Arrays, cached_arrays

VALUES = np.arange(12).reshape(3, 4)


class Maker:
    """Makes one entry, and counts how often."""

    def __init__(self) -> None:
        self.made = 0

    def write(self, stream: BinaryIO) -> None:
        self.made += 1
        np.save(stream, VALUES)
        np.save(stream, VALUES[0])

    def read(self, arrays: Arrays) -> tuple[np.ndarray, np.ndarray] | None:
        first, second = arrays
        right = first.dtype == VALUES.dtype and first.shape == (3, 4) and second.shape == (4,)
        return (first, second) if right else None

    def __call__(self, facts: Any = 0) -> int:
        """How often it was made after one more look."""
        first, second = cached_arrays(facts, self.write, self.read)
        assert isinstance(first, np.memmap) and not first.flags.writeable
        np.testing.assert_array_equal(first, VALUES)
        np.testing.assert_array_equal(second, VALUES[0])
        return self.made


@pytest.fixture
def folder(own_cache: Path) -> Path:
    return own_cache / "sonomime" / "clips"


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_an_entry_is_made_once_for_its_facts(folder: Path) -> None:
    maker = Maker()
    assert [maker(0), maker(0), maker(["a", 1]), maker(0)] == [1, 1, 2, 2]
    assert len(entries(folder)) == 2
    assert folder.stat().st_mode & 0o777 == 0o700


def saved(*arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array)
    return stream.getvalue()


HEADER = b"\x93NUMPY\x01\x00v\x00"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        saved(VALUES, VALUES[0])[:-1],
        saved(VALUES, VALUES[0]) + b"more",
        saved(VALUES),
        saved(VALUES[:2], VALUES[0]),
        saved(VALUES.astype(np.float32), VALUES[0]),
        HEADER + b"[" * 117 + b"\n",
        HEADER + b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999, 4)}".ljust(118),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 100,
    ],
    ids=[
        "empty", "text", "cut off", "longer", "an array less", "shape", "kind", "brackets",
        "terabytes", "version",
    ],
)  # fmt: skip
def test_a_damaged_entry_is_made_again(content: bytes, folder: Path) -> None:
    maker = Maker()
    maker()
    (entry,) = entries(folder)
    entry.write_bytes(content)
    assert [maker(), maker()] == [2, 2]


def test_an_entry_with_one_flipped_bit_is_made_again(folder: Path) -> None:
    maker = Maker()
    maker()
    (entry,) = entries(folder)
    content = bytearray(entry.read_bytes())
    content[130] ^= 1  # a value of the first array, behind its header of 128 bytes
    entry.write_bytes(content)
    assert [maker(), maker()] == [2, 2]


@pytest.mark.parametrize("kind", ["dangling link", "link to the right thing", "pipe"])
def test_links_and_pipes_are_replaced_and_not_followed(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    maker, other = Maker(), tmp_path / "other"
    maker()
    (entry,) = entries(folder)
    content = entry.read_bytes()
    entry.unlink()
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(other)
    if kind != "dangling link":
        other.write_bytes(content)
    assert maker() == 2
    assert entry.is_file() == (kind != "pipe") and not entry.is_symlink()
    assert other.exists() == (kind != "dangling link")
    assert not other.exists() or other.read_bytes() == content


def test_the_least_recently_used_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker()
    maker(0)
    size = entries(folder)[0].stat().st_size
    (folder / "a folder").mkdir()
    (folder / ".left.0123abcd.part.arrays").write_bytes(b"by a killed run")
    monkeypatch.setattr(array_cache, "MOST_BYTES", 2 * size + size // 2)
    maker(1)
    for age, path in enumerate(entries(folder)):
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
    assert [maker(0), maker(1), maker(0), maker(1)] == [1, 2, 2, 2]
    monkeypatch.setattr(array_cache, "_used", set())
    assert maker(2) == 3
    assert len(entries(folder)) == 1


def no_space(path: Path | str = "") -> Any:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def full(path: Path) -> Any:
    raise OutputError(f"cannot write {path}: no space left")


def spoil(how: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "full":
        monkeypatch.setattr(array_cache, "atomic_path", full)
    elif how == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    elif how == "a file in the way":
        folder.parent.mkdir(parents=True)
        folder.write_text("in the way")
    elif how == "a link":
        (folder.parent / "elsewhere").mkdir(parents=True)
        folder.symlink_to(folder.parent / "elsewhere")
    elif how == "another user's":
        folder.mkdir(mode=0o755, parents=True)
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        if not os.geteuid():  # root's folders are trusted
            os.chown(folder, 54321, 54321)
    else:
        folder.mkdir(parents=True)
        folder.chmod(0o770)


@pytest.mark.parametrize(
    "how",
    ["full", "no home", "a file in the way", "a link", "others can write", "another user's"],
)
def test_a_run_goes_on_without_the_cache_and_names_it_once(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(array_cache, "_unusable", set())
    spoil(how, folder, monkeypatch)
    maker = Maker()
    with caplog.at_level(logging.WARNING):
        assert [maker(0), maker(1)] == [1, 2]
    (warning,) = caplog.messages
    assert "cache" in warning and " -o" not in warning
    assert how == "no home" or str(folder) in warning
    assert not folder.is_dir() or not entries(folder)


def test_nowhere_to_write_is_an_output_error_that_names_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_cache, "atomic_path", full)
    monkeypatch.setattr("tempfile.TemporaryFile", no_space)
    with pytest.raises(OutputError) as caught:
        cached_arrays(0, Maker().write, Maker().read)
    assert "cache" in caught.value.message
    assert "XDG_CACHE_HOME" in caught.value.hint and " -o" not in caught.value.hint


def test_errors_of_the_maker_pass_and_leave_nothing(folder: Path) -> None:
    def broken(stream: BinaryIO) -> None:
        stream.write(b"half")
        raise InputError("a broken clip")

    with pytest.raises(InputError):
        cached_arrays(0, broken, Maker().read)
    assert entries(folder) == []
