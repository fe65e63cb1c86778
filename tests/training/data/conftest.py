"""A cache of their own for all tests of data, and a small data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from .clips import A, B, frames, write_folder, write_table, write_video


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "sonomime" / "clips"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_video(root / "clips" / "a.mkv", frames(4))
    write_folder(root / "clips" / "b", frames(3, seed=1))
    (root / "clips" / "c.nii").write_bytes(b"not read")
    write_table(root / "clips.csv", A, B, "clips/c.nii,s3,heart,test,")
    return root
