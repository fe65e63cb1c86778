"""A clip loaded: cropped, letterboxed, without repeats, with its labels, and cached."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.support.errors import InputError
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data import frame_cache
from sonomime.training.data.annotations import COLUMNS as KEYPOINT_COLUMNS
from sonomime.training.data.dataset import Clip, ClipFrames, find_clips, load_clip

from .written_clips import H, W, frames, write_folder, write_table, write_video


def clip_of(path: Path, crop: Crop | None = None) -> Clip:
    return Clip(path.name, path, "s", "g", "", crop)


def of_images(path: Path, images: Sequence[np.ndarray], size: int = W) -> ClipFrames:
    write = write_video if path.suffix else write_folder
    return load_clip(clip_of(write(path, images)), size, 1)


def test_frames_are_loaded_cropped_and_letterboxed(tmp_path: Path) -> None:
    images = frames(3)
    clip = clip_of(write_video(tmp_path / "v.mkv", images), Crop(2, 4, 32, 16))
    loaded = load_clip(clip, 32, 1)
    assert isinstance(loaded.frames, np.memmap)
    assert loaded.frames.shape == (len(loaded), 32, 32) == (3, 32, 32)
    np.testing.assert_array_equal(loaded.frames[:, 8:24], images[:, 4:20, 2:34])
    assert not loaded.frames[:, :8].any()
    assert loaded.indices.tolist() == [0, 1, 2]
    assert loaded.points.shape == (3, 0, 2)
    assert load_clip(clip, 32, 3).frames.shape == (3, 32, 32, 3)
    with pytest.raises(InputError, match=r"v\.mkv"):
        load_clip(clip_of(tmp_path / "v.mkv", Crop(0, 0, 99, 9)), 32, 1)


def test_folders_are_read_in_natural_order(tmp_path: Path) -> None:
    loaded = of_images(tmp_path / "f", frames(12))
    inside = loaded.frames[:, loaded.letterbox.y : loaded.letterbox.y + H]
    np.testing.assert_array_equal(inside, frames(12))


@pytest.mark.parametrize("size", [16, 64])
def test_repeated_frames_are_dropped_whatever_the_models_size(tmp_path: Path, size: int) -> None:
    a, b, c = frames(3)
    nearly = a.copy()
    nearly[0, :10] ^= 1  # what a codec does to a still picture
    loaded = of_images(tmp_path / "v.mkv", [a, a, nearly, b, b, a, c, c, c], size)
    assert loaded.indices.tolist() == [0, 3, 5, 6]


def test_slow_change_is_not_dropped_for_being_slow(tmp_path: Path) -> None:
    """A tenth of the pixels brightens by one level a frame: each frame is near its neighbour."""
    images = [np.full((H, W), 100, np.uint8)]
    for i in range(20):
        images.append(images[-1].copy())
        images[-1].reshape(-1)[i % 10 :: 10] += 1
    indices = of_images(tmp_path / "f", images).indices
    assert 8 <= len(indices) <= 12
    assert np.diff(indices).max() <= 3


# -- labels ----------------------------------------------------------------------------------------


def labelled(folder: Path, rows: Sequence[Sequence[object]]) -> list[ClipFrames]:
    write_table(folder / "keypoints.csv", KEYPOINT_COLUMNS, rows)
    return [load_clip(clip, W, 1) for clip in find_clips([folder]).clips]


def test_keypoints_are_placed_and_partly_labelled_clips_are_fine(dataset: Path) -> None:
    rows = [
        ["clips/a.mkv", 2, "neck", 10, 12, 1],
        ["clips/a.mkv", 2, "edge", 10, 12, 0],
        ["clips/b", "f1.png", "edge", 20, 16, 1],
        ["clips/b", "f1.png", "neck", 1, 1, 1],  # outside the crop
    ]
    a, b = labelled(dataset, rows)
    assert a.keypoint_names == b.keypoint_names == ("edge", "neck")
    assert a.visible.tolist() == [[False] * 2, [False] * 2, [False, True], [False] * 2]
    np.testing.assert_allclose(points_to_pixels(a.points[2, 1], W), [10, 12 + 4], atol=1e-5)
    assert b.visible.tolist() == [[False] * 2, [True, False], [False] * 2]
    scale = 40 / 30  # 30 x 28 in a square of 40, at y = (40 - 37) // 2
    expected = [(16 + 0.5) * scale - 0.5, 1 + (14 + 0.5) * 37 / 28 - 0.5]
    np.testing.assert_allclose(points_to_pixels(b.points[1, 0], W), expected, atol=1e-5)
    assert a.absent is not None and b.absent is not None
    assert a.absent.tolist() == [[False] * 2, [False] * 2, [True, False], [False] * 2]
    assert b.absent.tolist() == [[False] * 2, [False, True], [False] * 2]  # cropped away
    assert np.isfinite(a.points).all()


def test_labels_of_a_repeated_frame_go_to_the_one_it_repeats(tmp_path: Path) -> None:
    a, b = frames(2)
    write_video(tmp_path / "d" / "v.mkv", [a, a, b, b])
    places = {1: (10, 12), 3: (1, 1), 2: (20, 22)}
    rows = [["v.mkv", frame, "neck", x, y, 1] for frame, (x, y) in places.items()]
    (loaded,) = labelled(tmp_path / "d", rows)
    assert loaded.visible.all()
    pixels = points_to_pixels(loaded.points[:, 0], W)
    np.testing.assert_allclose(pixels, [[10, 16], [20, 26]], atol=1e-4)


def test_labels_beyond_the_end_of_a_video(dataset: Path) -> None:
    with pytest.raises(InputError) as caught:
        labelled(dataset, [["clips/a.mkv", 4, "neck", 1, 1, 1]])
    assert "keypoints.csv" in caught.value.message and "4 frames" in caught.value.hint


# -- the cache -------------------------------------------------------------------------------------


def test_the_cache_is_used_and_follows_the_file(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = clip_of(write_video(tmp_path / "v.mkv", frames(3)))
    first = load_clip(clip, W, 1).frames.copy()
    (entry,) = (own_cache / "sonomime" / "clips").iterdir()
    opened = Mock(wraps=frame_cache.open_source)
    monkeypatch.setattr(frame_cache, "open_source", opened)
    np.testing.assert_array_equal(load_clip(clip, W, 1).frames, first)
    assert opened.call_count == 0
    # Another clip's entry under this one's name: of another size.
    load_clip(clip, 16, 1)
    (other,) = set(entry.parent.iterdir()) - {entry}
    entry.write_bytes(other.read_bytes())
    np.testing.assert_array_equal(load_clip(clip, W, 1).frames, first)
    load_clip(clip_of(clip.path, Crop(0, 0, 20, 20)), W, 1)
    assert opened.call_count == 3
    write_video(clip.path, frames(3, seed=9))
    os.utime(clip.path, ns=(1, 1))
    assert not np.array_equal(load_clip(clip, W, 1).frames, first)
    assert opened.call_count == 4


@pytest.mark.parametrize("what", ["cut off", "sizes"])
def test_a_broken_clip_leaves_nothing_in_the_cache(
    what: str, tmp_path: Path, own_cache: Path
) -> None:
    path = tmp_path / "v.mkv"
    if what == "cut off":
        data = write_video(path, frames(30)).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    else:
        write_folder(path, [np.zeros((20, 20), np.uint8), np.zeros((20, 24), np.uint8)])
    with pytest.raises(InputError, match=r"v\.mkv"):
        load_clip(clip_of(path), W, 1)
    assert [path for path in own_cache.rglob("*") if path.is_file()] == []


# -- real data -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_repeats_of_real_screen_recordings(shared_data: Path) -> None:
    """Counts agree with those that the manifest of the test clips states."""
    with (shared_data / "test" / "MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        expected = {row["local"]: int(row["unique_frames"]) for row in csv.DictReader(stream)}
    found = find_clips([shared_data / "test"])
    assert (len(found.clips), len(found.unsupported)) == (25, 2)
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
