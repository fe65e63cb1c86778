"""Dataset folders: strict tables, bare folders, formats without a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.support.errors import InputError
from sonomime.training.data.dataset import COLUMNS, find_clips

from .written_clips import frames, write_folder, write_table, write_video


def test_clips_are_found(dataset: Path) -> None:
    found = find_clips([dataset])
    assert [clip.name for clip in found.clips] == ["clips/a.mkv", "clips/b"]
    a, b = found.clips
    assert (a.subject, a.group, a.split, a.crop) == ("s1", "lung", "train", None)
    assert b.crop == Crop(4, 2, 30, 28)
    assert found.warnings == []
    assert found.keypoint_names == ()


def test_formats_without_a_reader_are_listed_and_left_out(dataset: Path) -> None:
    unsupported = find_clips([dataset]).unsupported
    assert [(clip.name, reason) for clip, reason in unsupported] == [
        ("clips/c.dcm", "DICOM has no reader yet")
    ]


@pytest.mark.parametrize("name", ["x.mha", "x.mhd", "x.nrrd", "x.nii", "x.nii.gz", "X.DCM"])
def test_formats_without_a_reader_in_a_bare_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "bare"
    write_video(root / "a.mkv", frames(2))
    (root / name).write_bytes(b"something")
    found = find_clips([root])
    assert [clip.name for clip in found.clips] == ["a.mkv"]
    assert [clip.name for clip, _ in found.unsupported] == [name]


def test_a_folder_of_such_files_is_listed_too(dataset: Path) -> None:
    (dataset / "series").mkdir()
    (dataset / "series" / "1.dcm").write_bytes(bytes(128) + b"DICM")
    write_table(dataset / "clips.csv", COLUMNS, [["series", "s", "g", "test", ""]])
    found = find_clips([dataset])
    assert found.clips == []
    assert "DICOM" in found.unsupported[0][1]


def test_split_filter(dataset: Path) -> None:
    found = find_clips([dataset], split="test")
    assert [clip.name for clip in found.clips] == ["clips/b"]
    assert [clip.name for clip in find_clips([dataset], split="train").clips] == ["clips/a.mkv"]
    with pytest.raises(InputError, match="'val'") as caught:
        find_clips([dataset], split="val")
    assert "test, train" in caught.value.hint


def test_a_subject_in_two_splits_is_warned_of(dataset: Path) -> None:
    rows = [["clips/a.mkv", "s1", "g", "train", ""], ["clips/b", "s1", "g", "test", ""]]
    write_table(dataset / "clips.csv", COLUMNS, rows)
    (warning,) = find_clips([dataset]).warnings
    assert "'s1'" in warning
    assert "test and train" in warning


def test_a_global_crop_overrides_every_clip_s_own(dataset: Path) -> None:
    crop = Crop(0, 0, 20, 20)
    assert {clip.crop for clip in find_clips([dataset], crop=crop).clips} == {crop}


@pytest.mark.parametrize("rows_before", [0, 2])
@pytest.mark.parametrize(
    ("row", "says"),
    [
        (["clips/a.mkv", "", "g", "train", ""], "subject is empty"),
        (["", "s", "g", "train", ""], "clip is empty"),
        (["clips/a.mkv", "s", "g", "train", "1,2,3"], "crop '1,2,3'"),
        (["clips/a.mkv", "s", "g", "train", "-1,2,3,4"], "crop '-1,2,3,4'"),
        (["clips/a.mkv", "s", "g", "train"], "4 cells"),
        (["clips/a.mkv", "s", "g", "train", "1", "2", "3", "4"], "8 cells"),
        (["../a.mkv", "s", "g", "train", ""], "outside"),
        (["/etc/passwd", "s", "g", "train", ""], "outside"),
        (["clips/missing.mkv", "s", "g", "train", ""], "no clip 'clips/missing.mkv'"),
    ],
)
def test_malformed_rows_name_file_and_line(
    dataset: Path, row: list[str], says: str, rows_before: int
) -> None:
    before = [["clips/b", "s2", "g", "test", ""], ["clips/c.dcm", "s3", "g", "test", ""]]
    write_table(dataset / "clips.csv", COLUMNS, [*before[:rows_before], row])
    with pytest.raises(InputError) as caught:
        find_clips([dataset])
    assert f"{dataset / 'clips.csv'}:{rows_before + 2}:" in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


def test_a_missing_clip_is_an_error_with_the_nearest_name(dataset: Path) -> None:
    write_table(dataset / "clips.csv", COLUMNS, [["clips/a.mp4", "s", "g", "train", ""]])
    with pytest.raises(InputError) as caught:
        find_clips([dataset])
    assert "'clips/a.mkv'" in caught.value.hint


def test_a_clip_named_twice_a_missing_column_and_an_empty_table(dataset: Path) -> None:
    table = dataset / "clips.csv"
    row = ["clips/a.mkv", "s", "g", "train", ""]
    write_table(table, COLUMNS, [row, ["clips/./a.mkv", *row[1:]]])
    with pytest.raises(InputError, match=r":3: .*twice \(first on line 2\)"):
        find_clips([dataset])
    write_table(table, COLUMNS[:-1], [row[:-1]])
    with pytest.raises(InputError, match=":1: column 'crop' is missing"):
        find_clips([dataset])
    write_table(table, COLUMNS, [])
    with pytest.raises(InputError, match="names no clip"):
        find_clips([dataset])


def test_an_unfinished_phantom_is_no_bare_folder(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text("{}")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "pelvic1-000.mkv").write_bytes(b"")
    with pytest.raises(InputError, match="unfinished phantom") as caught:
        find_clips([tmp_path])
    assert "sonomime phantom" in caught.value.hint


def test_a_bare_folder_makes_every_clip_a_subject_and_says_so_once(tmp_path: Path) -> None:
    root = tmp_path / "bare"
    write_video(root / "a.mkv", frames(2))
    write_video(root / "lung" / "b.mkv", frames(2))
    write_folder(root / "lung" / "c", frames(2))
    write_video(root / ".hidden" / "d.mkv", frames(2))
    (root / "notes.txt").write_text("nothing")
    found = find_clips([root])
    assert [(clip.name, clip.group) for clip in found.clips] == [
        ("a.mkv", "all"),
        ("lung/b.mkv", "lung"),
        ("lung/c", "lung"),
    ]
    assert len({clip.subject for clip in found.clips}) == 3
    assert len(found.warnings) == 1
    assert "own subject" in found.warnings[0]
    assert len(find_clips([root], split="test").clips) == 3


def test_a_folder_of_frames_and_a_single_video_are_one_clip(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "frames", frames(3))
    video = write_video(tmp_path / "v.mkv", frames(3))
    assert [clip.name for clip in find_clips([folder]).clips] == ["frames"]
    assert [clip.name for clip in find_clips([video]).clips] == ["v.mkv"]


def test_images_beside_videos_are_no_frames(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "bare", frames(1), "preview{}.png")
    write_video(root / "a.mkv", frames(2))
    assert [clip.name for clip in find_clips([root]).clips] == ["a.mkv"]


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_clips([tmp_path / "none"])
    (tmp_path / "empty").mkdir()
    for split in (None, "train"):
        with pytest.raises(InputError, match="no clip in") as error:
            find_clips([tmp_path / "empty"], split=split)
        assert "with videos" in error.value.hint


def test_two_folders_keep_their_clips_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_video(tmp_path / name / "a.mkv", frames(2))
    write_video(tmp_path / "two" / "b.mkv", frames(2))
    found = find_clips([tmp_path / "one", tmp_path / "two"])
    assert [clip.name for clip in found.clips] == ["one/a.mkv", "two/a.mkv", "b.mkv"]
    with pytest.raises(InputError, match="2 times"):
        find_clips([tmp_path / "one", tmp_path / "one"])
