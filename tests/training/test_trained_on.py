"""What a checkpoint says of its data: names that do not depend on what else was given."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonomime.runtime.support.errors import CheckpointError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import Config
from sonomime.training.data.dataset import find_clips
from sonomime.training.trained_on import record, recorded


def dataset(folder: Path, rows: list[str]) -> Path:
    folder.mkdir()
    for row in rows:
        (folder / row.split(",")[0]).write_bytes(b"")
    (folder / "clips.csv").write_text("\n".join(["clip,subject,group,split,crop", *rows]) + "\n")
    return folder


def test_clips_are_kept_by_subject_as_their_own_folder_names_them(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", ["a.mp4,s,g,train,", "b.mp4,s,g,train,", "c.mp4,t,g,test,"])
    two = dataset(tmp_path / "two", ["a.mp4,u,g,train,"])
    (bare := tmp_path / "bare").mkdir()
    (bare / "x.mp4").write_bytes(b"")
    folders = [one, two, bare, bare / "x.mp4"][:3]
    found = find_clips(folders, split="train")
    assert {clip.name for clip in found.clips} >= {"one/a.mp4", "two/a.mp4"}
    kept = record(folders, found.clips)
    assert kept == [
        {"name": "one", "clips": {"s": ["a.mp4", "b.mp4"]}},
        {"name": "two", "clips": {"u": ["a.mp4"]}},
        {"name": "bare", "clips": {"x.mp4": ["x.mp4"]}},
    ]
    assert recorded(kept) == ({"a.mp4", "b.mp4", "x.mp4"}, {"s", "u", "x.mp4"})
    assert recorded([{"name": "older"}]) == (set(), set())


def test_a_single_video_has_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(b"")
    assert record([path], find_clips([path]).clips) == [
        {"name": "x.mp4", "clips": {"x.mp4": ["x.mp4"]}}
    ]


@pytest.mark.parametrize("data", [[{"name": "old"}], [{"name": "new", "clips": {"s": ["a", "b"]}}]])
def test_a_checkpoint_keeps_it(data: list[dict[str, object]], tmp_path: Path) -> None:
    Checkpoint(Config(), 1, {"w": torch.zeros(1)}, data=data).save(tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt").data == data


@pytest.mark.parametrize("entry", ["text", 3, {"name": "x", "clips": [1]}, {"clips": {"s": 5}}])
def test_a_damaged_record_is_a_damaged_checkpoint(entry: object, tmp_path: Path) -> None:
    data: list = [entry]
    Checkpoint(Config(), 1, {"w": torch.zeros(1)}, data=data).save(tmp_path / "c.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "c.pt")
