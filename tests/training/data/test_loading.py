"""A clip loaded: cropped, letterboxed, without repeats, with its labels, and cached."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.support.errors import InputError, OutputError
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data import frame_cache
from sonomime.training.data.annotations import COLUMNS as KEYPOINT_COLUMNS
from sonomime.training.data.dataset import Clip, find_clips, load_clip
from sonomime.training.data.frame_cache import default_cache_dir

from .written_clips import H, W, frames, write_folder, write_table, write_video


def test_frames_are_loaded_cropped_and_letterboxed(tmp_path: Path) -> None:
    images = frames(3)
    clip = Clip("v", write_video(tmp_path / "v.mkv", images), "s", "g", "", Crop(2, 4, 32, 16))
    loaded = load_clip(clip, 32, 1)
    assert isinstance(loaded.frames, np.memmap)
    assert loaded.frames.shape == (3, 32, 32)
    np.testing.assert_array_equal(loaded.frames[:, 8:24], images[:, 4:20, 2:34])
    assert not loaded.frames[:, :8].any()
    assert loaded.indices.tolist() == [0, 1, 2]
    assert loaded.points.shape == (3, 0, 2)
    assert len(loaded) == 3
    assert load_clip(clip, 32, 3).frames.shape == (3, 32, 32, 3)


def test_a_crop_outside_names_the_clip(tmp_path: Path) -> None:
    clip = Clip("v", write_video(tmp_path / "v.mkv", frames(1)), "s", "g", "", Crop(0, 0, 99, 9))
    with pytest.raises(InputError, match=r"v\.mkv"):
        load_clip(clip, 32, 1)


def test_folders_are_read_in_natural_order(tmp_path: Path) -> None:
    images = frames(12)
    loaded = load_clip(Clip("f", write_folder(tmp_path / "f", images), "s", "g", ""), W, 1)
    inside = loaded.frames[:, loaded.letterbox.y : loaded.letterbox.y + H]
    np.testing.assert_array_equal(inside, images)


def test_repeated_frames_are_dropped(tmp_path: Path) -> None:
    a, b, c = frames(3)
    nearly = a.copy()
    nearly[0, :10] ^= 1  # what a codec does to a still picture
    video = write_video(tmp_path / "v.mkv", [a, a, nearly, b, b, a, c, c, c])
    loaded = load_clip(Clip("v", video, "s", "g", ""), W, 1)
    assert loaded.indices.tolist() == [0, 3, 5, 6]


def test_slow_change_is_not_dropped_for_being_slow(tmp_path: Path) -> None:
    """A tenth of the pixels brightens by one level a frame: each frame is near its neighbour."""
    images = [np.full((H, W), 100, np.uint8)]
    for i in range(20):
        images.append(images[-1].copy())
        images[-1].reshape(-1)[i % 10 :: 10] += 1
    indices = load_clip(Clip("f", write_folder(tmp_path / "f", images), "s", "g", ""), W, 1).indices
    assert 8 <= len(indices) <= 12
    assert np.diff(indices).max() <= 3


def test_repeats_do_not_depend_on_the_model_s_size(tmp_path: Path) -> None:
    a, b = frames(2)
    clip = Clip("v", write_video(tmp_path / "v.mkv", [a, a, b, b, a]), "s", "g", "")
    assert load_clip(clip, 16, 1).indices.tolist() == load_clip(clip, 64, 3).indices.tolist()


def keypoint_row(video: str, frame: object, name: str, x: float, y: float) -> list[object]:
    return [video, frame, name, x, y, 1]


def test_keypoints_are_placed_and_partly_labelled_clips_are_fine(dataset: Path) -> None:
    rows = [
        keypoint_row("clips/a.mkv", 2, "neck", 10, 12),
        keypoint_row("clips/b", "f1.png", "edge", 20, 16),
        keypoint_row("clips/b", "f1.png", "neck", 1, 1),  # outside of the crop
    ]
    write_table(dataset / "keypoints.csv", KEYPOINT_COLUMNS, rows)
    found = find_clips([dataset])
    assert found.keypoint_names == ("edge", "neck")
    a, b = (load_clip(clip, W, 1) for clip in found.clips)
    assert a.keypoint_names == ("edge", "neck")
    assert a.visible.tolist() == [[False] * 2, [False] * 2, [False, True], [False] * 2]
    np.testing.assert_allclose(points_to_pixels(a.points[2, 1], W), [10, 12 + 4], atol=1e-5)
    assert b.visible.tolist() == [[False] * 2, [True, False], [False] * 2]
    scale = 40 / 30  # 30 x 28 in a square of 40, at y = (40 - 37) // 2
    expected = [(16 + 0.5) * scale - 0.5, 1 + (14 + 0.5) * 37 / 28 - 0.5]
    np.testing.assert_allclose(points_to_pixels(b.points[1, 0], W), expected, atol=1e-5)
    assert a.absent is not None and not a.absent.any()
    assert b.absent is not None
    assert b.absent.tolist() == [[False] * 2, [False, True], [False] * 2]  # cropped away


def test_a_label_that_is_not_visible_says_that_its_frame_lacks_it(dataset: Path) -> None:
    rows = [
        [*keypoint_row("clips/a.mkv", 1, "neck", 10, 12)[:-1], 0],
        keypoint_row("clips/a.mkv", 1, "edge", 10, 12),
    ]
    write_table(dataset / "keypoints.csv", KEYPOINT_COLUMNS, rows)
    loaded = load_clip(find_clips([dataset]).clips[0], W, 1)
    assert loaded.absent is not None
    assert loaded.visible.tolist() == [[False] * 2, [True, False], [False] * 2, [False] * 2]
    assert loaded.absent.tolist() == [[False] * 2, [False, True], [False] * 2, [False] * 2]
    assert np.isfinite(loaded.points).all()


def test_labels_of_a_repeated_frame_go_to_the_one_it_repeats(tmp_path: Path) -> None:
    a, b = frames(2)
    write_video(tmp_path / "d" / "v.mkv", [a, a, b, b])
    rows = [
        keypoint_row("v.mkv", 1, "neck", 10, 12),
        keypoint_row("v.mkv", 3, "neck", 1, 1),
        keypoint_row("v.mkv", 2, "neck", 20, 22),
    ]
    write_table(tmp_path / "d" / "keypoints.csv", KEYPOINT_COLUMNS, rows)
    loaded = load_clip(find_clips([tmp_path / "d"]).clips[0], W, 1)
    assert loaded.visible.all()
    pixels = points_to_pixels(loaded.points[:, 0], W)
    np.testing.assert_allclose(pixels, [[10, 16], [20, 26]], atol=1e-4)


def test_keypoints_of_unknown_videos_and_frames_name_the_line(dataset: Path) -> None:
    table = dataset / "keypoints.csv"
    good = keypoint_row("clips/a.mkv", 0, "neck", 1, 1)
    write_table(table, KEYPOINT_COLUMNS, [good, keypoint_row("clips/a.mp4", 0, "neck", 1, 1)])
    with pytest.raises(InputError, match=":3: unknown video") as caught:
        find_clips([dataset])
    assert "'clips/a.mkv'" in caught.value.hint
    write_table(table, KEYPOINT_COLUMNS, [good, keypoint_row("clips/b", "f9.png", "neck", 1, 1)])
    with pytest.raises(InputError, match=r":3: .*no frame 'f9\.png'"):
        find_clips([dataset])
    write_table(table, KEYPOINT_COLUMNS, [good, keypoint_row("clips/a.mkv", 4, "neck", 1, 1)])
    clip = find_clips([dataset]).clips[0]
    with pytest.raises(InputError, match=r"keypoints\.csv:3: .*no frame 4") as caught:
        load_clip(clip, W, 1)
    assert "4 frames" in caught.value.hint


def test_the_cache_is_used_and_follows_the_file(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write_video(tmp_path / "v.mkv", frames(3))
    clip = Clip("v", video, "s", "g", "")
    first = load_clip(clip, W, 1).frames.copy()
    assert default_cache_dir() == own_cache / "sonomime" / "clips"
    assert len(list(default_cache_dir().iterdir())) == 2

    opened: list[Path] = []
    original = frame_cache.open_source

    def counted(path: Path, *rest: object) -> object:
        opened.append(path)
        return original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(frame_cache, "open_source", counted)
    np.testing.assert_array_equal(load_clip(clip, W, 1).frames, first)
    assert opened == []
    load_clip(clip, 16, 1)
    load_clip(Clip("v", video, "s", "g", "", Crop(0, 0, 20, 20)), W, 1)
    assert len(opened) == 2
    write_video(video, frames(3, seed=9))
    os.utime(video, ns=(1, 1))
    assert not np.array_equal(load_clip(clip, W, 1).frames, first)
    assert len(opened) == 3


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
def test_a_damaged_cache_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    clip = Clip("v", write_video(tmp_path / "v.mkv", frames(3)), "s", "g", "")
    first = load_clip(clip, W, 1).frames.copy()
    (array,) = default_cache_dir().glob("*.npy")
    (facts,) = default_cache_dir().glob("*.json")
    if damage == "cut":
        array.write_bytes(array.read_bytes()[:-100])
    elif damage == "text":
        facts.write_text("{")
    else:
        facts.unlink()
    np.testing.assert_array_equal(load_clip(clip, W, 1).frames, first)


def test_a_broken_video_leaves_nothing_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    video = write_video(tmp_path / "v.mkv", frames(30))
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"v\.mkv"):
        load_clip(Clip("v", video, "s", "g", ""), W, 1)
    text = tmp_path / "t.mp4"
    text.write_text("no video")
    with pytest.raises(InputError, match=r"t\.mp4"):
        load_clip(Clip("t", text, "s", "g", ""), W, 1)
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


def test_frames_of_differing_sizes_are_an_error(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path / "f", [np.zeros((20, 20), np.uint8), np.zeros((20, 24), np.uint8)]
    )
    with pytest.raises(InputError, match="24 x 20"):
        load_clip(Clip("f", folder, "s", "g", ""), W, 1)


def test_a_cache_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    clip = Clip("v", write_video(tmp_path / "v.mkv", frames(2)), "s", "g", "")
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(OutputError):
        load_clip(clip, W, 1, cache_dir=blocked)


@pytest.mark.slow
def test_repeats_of_real_screen_recordings(shared_data: Path) -> None:
    """Counts agree with those that the manifest of the test clips states."""
    with (shared_data / "test" / "MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        expected = {row["local"]: int(row["unique_frames"]) for row in csv.DictReader(stream)}
    found = find_clips([shared_data / "test"])
    assert len(found.clips) == 25
    assert len(found.unsupported) == 2
    for clip in found.clips:
        if clip.name.endswith(("file2.mp4", "short.mp4", "mov6.mov", "mov5.mov", "134441.mpeg")):
            count = len(load_clip(clip, 64, 1))
            assert abs(count - expected[clip.name]) <= 0.02 * expected[clip.name]


def test_real_labels_lie_inside_their_frames(shared_data: Path) -> None:
    found = find_clips([shared_data / "tongue_keypoints"])
    assert len(found.keypoint_names) == 14
    clip = load_clip(found.clips[0], 64, 1)
    assert clip.visible.sum() == 406
    assert (np.abs(clip.points[clip.visible]) <= 1).all()
