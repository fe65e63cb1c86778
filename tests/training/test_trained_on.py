"""What a checkpoint says of its data: names that do not depend on what else was given."""

from __future__ import annotations

from pathlib import Path

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
    for path in (bare / "x.mp4", single := tmp_path / "y.mp4"):
        path.write_bytes(b"")
    folders = [one, two, bare, single]
    found = find_clips(folders, split="train")
    assert {clip.name for clip in found.clips} >= {"one/a.mp4", "two/a.mp4"}
    kept = record(folders, found.clips)
    assert kept == [
        {"name": "one", "clips": {"s": ["a.mp4", "b.mp4"]}},
        {"name": "two", "clips": {"u": ["a.mp4"]}},
        {"name": "bare", "clips": {"x.mp4": ["x.mp4"]}},
        {"name": "y.mp4", "clips": {"y.mp4": ["y.mp4"]}},
    ]
    assert recorded(kept[:3]) == ({"a.mp4", "b.mp4", "x.mp4"}, {"s", "u", "x.mp4"})
    assert recorded([{"name": "older"}]) == (set(), set())
