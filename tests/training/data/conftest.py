"""A cache of their own for all tests of data, and a small data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from .written_clips import frames, write_clips, write_folder, write_video

A, B = "clips/a.mkv,s1,lung,train,", 'clips/b,s2,muscle,test,"4,2,30,28"'


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_video(root / "clips" / "a.mkv", frames(4))
    write_folder(root / "clips" / "b", frames(3, seed=1))
    (root / "clips" / "c.dcm").write_bytes(bytes(128) + b"DICM")
    write_clips(root, A, B, "clips/c.dcm,s3,heart,test,")
    return root
