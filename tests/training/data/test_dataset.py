"""Dataset folders: strict tables, bare folders, links, formats without a reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from dicom_files import write_dicom

from sonomime.runtime.media.frames import Crop
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips

from .clips import A, B, frames, refused, write_folder, write_table, write_video


def names(*folders: Path, split: str | None = None) -> list[str]:
    return [clip.name for clip in find_clips(folders, split=split).clips]


def test_clips_are_found_by_split(dataset: Path) -> None:
    found = find_clips([dataset])
    a, b = found.clips
    assert (a.name, a.subject, a.group, a.split) == ("clips/a.mkv", "s1", "lung", "train")
    assert (a.crop, b.name, b.crop) == (None, "clips/b", Crop(4, 2, 30, 28))
    assert (found.warnings, a.keypoint_names) == ([], ())
    crop = Crop(0, 0, 20, 20)
    assert {clip.crop for clip in find_clips([dataset], crop=crop).clips} == {crop}
    assert names(dataset, split="test") == ["clips/b"]
    assert names(dataset, split="train") == ["clips/a.mkv"]
    refused(lambda: find_clips([dataset], split="val"), "test, train")
    write_table(dataset / "clips.csv", A, "clips/b,s1,g,test,")
    (warning,) = find_clips([dataset]).warnings
    assert "'s1'" in warning and "test and train" in warning


def test_dicom_files_are_clips(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    write_dicom(tmp_path / "a.dcm", frames(4))
    found = find_clips([tmp_path])
    assert [clip.name for clip in found.clips] == ["a.dcm"] and found.unsupported == []
    assert load_clip(found.clips[0], 32, 1).frames.shape[0] == 4


@pytest.mark.parametrize("name", ["x.nii.gz", "X.NII", "x/1.nii"])
def test_formats_without_a_reader_are_listed_and_left_out(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "a.mkv", frames(2))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"not read")
    clip = name.removesuffix("/1.nii")
    for listed in (name, clip):  # a bare folder, then a table
        found = find_clips([tmp_path])
        assert [each.name for each in found.clips] == ["a.mkv"]
        ((left_out, reason),) = found.unsupported
        assert left_out.name == listed and "reader" in reason
        write_table(tmp_path / "clips.csv", "a.mkv,s1,g,train,", f"{clip},s2,g,train,")


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("clips/a.mkv,,g,train,", "subject"),
        (",s,g,train,", "clip"),
        ('clips/a.mkv,s,g,train,"1,2,3"', "1,2,3"),
        ("clips/a.mkv,s,g,train", "4 cells"),
        ("../a.mkv,s,g,train,", "../a.mkv"),
        ("/etc/passwd,s,g,train,", "/etc/passwd"),
        ("clips/a.mp4,s,g,train,", "'clips/a.mkv'"),
        ("clips\\a.mkv,s,g,train,", "with /"),
        (f"clips/{'x' * 300},s,g,train,", "xxx"),
        ("clips/./b,s,g,train,", "clips/b"),
        (None, ""),
    ],
)
def test_malformed_tables_name_file_and_line(dataset: Path, row: str | None, named: str) -> None:
    table = write_table(dataset / "clips.csv", *((B, row) if row else ()))
    refused(lambda: find_clips([dataset]), f"{table}:3:" if row else "", named)


def test_a_clip_may_be_a_link_out_of_the_folder(tmp_path: Path) -> None:
    """Large data sets are linked together; the clip keeps the name of the link."""
    video = write_video(tmp_path / "store" / "v.mkv", frames(3))
    folder = write_folder(tmp_path / "store" / "f", frames(2, seed=1))
    for root in ("one", "two"):
        (tmp_path / root).mkdir()
        (tmp_path / root / "a.mkv").symlink_to(video)
        (tmp_path / root / "b").symlink_to(folder)
    found = find_clips([tmp_path / "one"]).clips
    assert [(clip.name, len(load_clip(clip, 32, 1))) for clip in found] == [("a.mkv", 3), ("b", 2)]
    # Two folders keep their clips apart.
    write_video(tmp_path / "two" / "c.mkv", frames(2))
    both = ["one/a.mkv", "one/b", "two/a.mkv", "two/b", "c.mkv"]
    assert names(tmp_path / "one", tmp_path / "two") == both
    refused(lambda: names(tmp_path / "one", tmp_path / "one"))
    (tmp_path / "one" / "gone.mkv").symlink_to(tmp_path / "nowhere")
    *_, gone = find_clips([tmp_path / "one"]).clips
    refused(lambda: load_clip(gone, 32, 1), "gone.mkv")


def test_a_bare_folder_makes_every_clip_a_subject_and_says_so_once(tmp_path: Path) -> None:
    root = tmp_path / "bare"
    video = write_video(root / "a.mkv", frames(2))
    write_video(root / "lung" / "b.mkv", frames(2))
    folder = write_folder(root / "lung" / "c", frames(2))
    write_video(root / ".hidden" / "d.mkv", frames(2))
    write_folder(root, frames(2), "preview{}.png")  # images beside videos are not frames
    (root / "notes.txt").write_text("nothing")
    found = find_clips([root])
    assert [(clip.name, clip.group) for clip in found.clips] == [
        ("a.mkv", "all"),
        ("lung/b.mkv", "lung"),
        ("lung/c", "lung"),
    ]
    assert len({clip.subject for clip in found.clips}) == 3
    assert len(found.warnings) == 1
    assert len(names(root, split="test")) == 3
    assert (names(video), names(folder)) == (["a.mkv"], ["c"])
    write_folder(root / "lung" / "c" / "d", frames(2))
    (root / "lung" / "c" / "f1.png").unlink()  # one picture beside folders of frames is a cover
    assert names(root / "lung" / "c") == ["d"]


def test_what_holds_no_clips_to_use_is_refused(tmp_path: Path) -> None:
    for file in ("empty/notes.txt", "phantom/phantom.json", "phantom/pelvic1-000.mkv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    write_folder(tmp_path / "still", frames(1))
    for name in ("none", "empty", "still", "phantom"):
        refused(lambda: find_clips([tmp_path / name], split="train"), name)  # noqa: B023
    refused(lambda: find_clips([], split="train"))
    # Two clips that would share a file of displacement.
    for file in ("d/one/v.mkv", "d/two/v.mkv", "d/displacement/v.npz"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"")
    refused(lambda: find_clips([tmp_path / "d"]), "rename")
