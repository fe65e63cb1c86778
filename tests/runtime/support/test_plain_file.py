"""Untrusted files are read within limits, and only if they are plain files."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from sonomime.runtime.support.errors import BundleError
from sonomime.runtime.support.plain_file import read_plain_file


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"small")
    tracemalloc.start()
    try:
        assert read_plain_file(tmp_path / "a", 8 << 30) == b"small"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


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


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"12")
    fstat = os.fstat

    def then_grow(handle: int) -> os.stat_result:
        info = fstat(handle)
        with (tmp_path / "a").open("ab") as file:
            file.write(b"34")
        return info

    monkeypatch.setattr(os, "fstat", then_grow)
    with pytest.raises(BundleError, match="grows"):
        read_plain_file(tmp_path / "a", 100)
