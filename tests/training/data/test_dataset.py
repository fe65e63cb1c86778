"""Dataset folders: strict tables, bare folders, links, formats without a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.support.errors import InputError
from sonomime.training.data.dataset import COLUMNS, find_clips, load_clip

from .written_clips import frames, write_folder, write_table, write_video


def names(*folders: Path, split: str | None = None) -> list[str]:
    return [clip.name for clip in find_clips(folders, split=split).clips]


def test_clips_are_found(dataset: Path) -> None:
    found = find_clips([dataset])
    a, b = found.clips
    assert (a.name, a.subject, a.group, a.split, a.crop) == (
        "clips/a.mkv", "s1", "lung", "train", None,
    )  # fmt: skip
    assert (b.name, b.crop) == ("clips/b", Crop(4, 2, 30, 28))
    assert (found.warnings, found.keypoint_names) == ([], ())
    assert [(clip.name, reason) for clip, reason in found.unsupported] == [
        ("clips/c.dcm", "DICOM has no reader yet")
    ]
    crop = Crop(0, 0, 20, 20)
    assert {clip.crop for clip in find_clips([dataset], crop=crop).clips} == {crop}


@pytest.mark.parametrize("name", ["x.mha", "x.nii.gz", "X.DCM", "x/1.dcm"])
def test_formats_without_a_reader_are_listed_and_left_out(tmp_path: Path, name: str) -> None:
    root = tmp_path / "bare"
    write_video(root / "a.mkv", frames(2))
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(bytes(128) + b"DICM")
    found = find_clips([root])
    assert [clip.name for clip in found.clips] == ["a.mkv"]
    assert [clip.name for clip, _ in found.unsupported] == [name]


def test_a_folder_of_such_files_is_listed_too(dataset: Path) -> None:
    (dataset / "series").mkdir()
    (dataset / "series" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    write_table(dataset / "clips.csv", COLUMNS, [["series", "s", "g", "test", ""]])
    found = find_clips([dataset])
    assert found.clips == [] and "DICOM" in found.unsupported[0][1]


def test_splits_are_kept_apart(dataset: Path) -> None:
    assert names(dataset, split="test") == ["clips/b"]
    assert names(dataset, split="train") == ["clips/a.mkv"]
    with pytest.raises(InputError) as caught:
        find_clips([dataset], split="val")
    assert "test, train" in caught.value.hint
    rows = [["clips/a.mkv", "s1", "g", "train", ""], ["clips/b", "s1", "g", "test", ""]]
    write_table(dataset / "clips.csv", COLUMNS, rows)
    (warning,) = find_clips([dataset]).warnings
    assert "'s1'" in warning and "test and train" in warning


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (["clips/a.mkv", "", "g", "train", ""], "subject"),
        (["", "s", "g", "train", ""], "clip"),
        (["clips/a.mkv", "s", "g", "train", "1,2,3"], "1,2,3"),
        (["clips/a.mkv", "s", "g", "train"], "4 cells"),
        (["../a.mkv", "s", "g", "train", ""], "../a.mkv"),
        (["/etc/passwd", "s", "g", "train", ""], "/etc/passwd"),
        (["clips/a.mp4", "s", "g", "train", ""], "'clips/a.mkv'"),
        (["clips/" + "x" * 300, "s", "g", "train", ""], "xxx"),
        (["clips/./b", "s", "g", "train", ""], "clips/b"),
    ],
)
def test_malformed_rows_name_file_and_line(dataset: Path, row: list[str], named: str) -> None:
    table = dataset / "clips.csv"
    write_table(table, COLUMNS, [["clips/b", "s2", "g", "test", ""], row])
    with pytest.raises(InputError) as caught:
        find_clips([dataset])
    assert f"{table}:3:" in caught.value.message
    assert named in caught.value.message + caught.value.hint and caught.value.hint


def test_a_table_without_rows(dataset: Path) -> None:
    write_table(dataset / "clips.csv", COLUMNS, [])
    with pytest.raises(InputError, match=r"clips\.csv"):
        find_clips([dataset])


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
    assert names(tmp_path / "one", tmp_path / "two")[0] == "one/a.mkv"
    (tmp_path / "one" / "gone.mkv").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"gone\.mkv"):
        find_clips([tmp_path / "one"])


def test_a_bare_folder_makes_every_clip_a_subject_and_says_so_once(tmp_path: Path) -> None:
    root = tmp_path / "bare"
    write_video(root / "a.mkv", frames(2))
    write_video(root / "lung" / "b.mkv", frames(2))
    write_folder(root / "lung" / "c", frames(2))
    write_video(root / ".hidden" / "d.mkv", frames(2))
    write_folder(root, frames(1), "preview{}.png")  # images beside videos are not frames
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


def test_a_folder_of_frames_and_a_single_video_are_one_clip(tmp_path: Path) -> None:
    assert names(write_folder(tmp_path / "frames", frames(3))) == ["frames"]
    assert names(write_video(tmp_path / "v.mkv", frames(3))) == ["v.mkv"]


def test_nothing_there_or_an_unfinished_phantom_is_an_error(tmp_path: Path) -> None:
    empty, phantom = tmp_path / "empty", tmp_path / "phantom"
    for folder in (empty, phantom):
        folder.mkdir()
    (phantom / "phantom.json").write_text("{}")
    (phantom / "pelvic1-000.mkv").write_bytes(b"")
    for folders in ([tmp_path / "none"], [empty], [phantom], []):
        with pytest.raises(InputError) as error:
            find_clips(folders, split="train")
        assert error.value.hint


def test_two_folders_keep_their_clips_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_video(tmp_path / name / "a.mkv", frames(2))
    write_video(tmp_path / "two" / "b.mkv", frames(2))
    assert names(tmp_path / "one", tmp_path / "two") == ["one/a.mkv", "two/a.mkv", "b.mkv"]
    with pytest.raises(InputError):
        names(tmp_path / "one", tmp_path / "one")
