"""A clip loaded: cropped, letterboxed, without repeats, with its labels, and cached."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from sonomime.runtime.media.frames import AskedCrop, Crop, Letterbox
from sonomime.runtime.readers.source import warn_once
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data import clip_frames
from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import Clip, find_clips
from sonomime.training.data.keypoints import Labels, place_keypoints, read_keypoints

from .clips import H, W, frames, refused, write_folder, write_table, write_video


def load(
    path: Path,
    size: int = W,
    crop: AskedCrop = None,
    channels: int = 1,
    displacement: Path | None = None,
) -> ClipFrames:
    clip = Clip(path.name, path, "s", "g", "", crop, displacement=displacement)
    return load_clip(clip, size, channels)


def test_frames_are_loaded_cropped_and_letterboxed(tmp_path: Path) -> None:
    images = frames(3)
    path, crop = write_video(tmp_path / "v.mkv", images), Crop(2, 4, 32, 16)
    loaded = load(path, 32, crop)
    assert isinstance(loaded.frames, np.memmap)
    assert loaded.frames.shape == (len(loaded), 32, 32) == (3, 32, 32)
    np.testing.assert_array_equal(loaded.frames[:, 8:24], images[:, 4:20, 2:34])
    assert not loaded.frames[:, :8].any()
    assert loaded.indices.tolist() == [0, 1, 2]
    assert loaded.points.shape == (3, 0, 2)
    assert load(path, 32, crop, channels=3).frames.shape == (3, 32, 32, 3)
    refused(lambda: load(path, 32, Crop(0, 0, 99, 9)), "v.mkv")
    refused(lambda: load(tmp_path / "gone.mkv"), "gone.mkv")


def test_folders_are_read_in_natural_order(tmp_path: Path) -> None:
    loaded = load(write_folder(tmp_path / "f", frames(12)))
    inside = loaded.frames[:, loaded.letterbox.y : loaded.letterbox.y + H]
    np.testing.assert_array_equal(inside, frames(12))


def test_repeated_frames_are_dropped_whatever_the_models_size(tmp_path: Path) -> None:
    a, b, c = frames(3)
    nearly = a.copy()
    nearly[0, :10] ^= 1  # what a codec does to a still picture
    path = write_video(tmp_path / "v.mkv", [a, a, nearly, b, b, a, c, c, c])
    for size in (16, 64):
        assert load(path, size).indices.tolist() == [0, 3, 5, 6]
    # Slow change is no repeat: a tenth of the pixels brightens by one level a frame, so each frame
    # is near its neighbour.
    images = [np.full((H, W), 100, np.uint8)]
    for i in range(20):
        images.append(images[-1].copy())
        images[-1].reshape(-1)[i % 10 :: 10] += 1
    indices = load(write_folder(tmp_path / "f", images)).indices
    assert 8 <= len(indices) <= 12
    assert np.diff(indices).max() <= 3


@pytest.mark.slow
def test_repeats_of_real_screen_recordings(shared_data: Path) -> None:
    """Counts agree with those that the manifest of the test clips states."""
    with (shared_data / "test" / "MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        expected = {row["local"]: int(row["unique_frames"]) for row in csv.DictReader(stream)}
    found = find_clips([shared_data / "test"])
    assert len(found.clips) + len(found.unsupported) == 27
    for clip in found.clips:
        if clip.name.endswith(("file2.mp4", "short.mp4", "mov6.mov", "mov5.mov", "134441.mpeg")):
            count = len(load_clip(clip, 64, 1))
            assert abs(count - expected[clip.name]) <= 0.02 * expected[clip.name]


# -- labels ----------------------------------------------------------------------------------------


def labelled(folder: Path, *rows: str) -> list[ClipFrames]:
    write_table(folder / "keypoints.csv", *rows)
    return [load_clip(clip, W, 1) for clip in find_clips([folder]).clips]


def test_keypoints_are_placed_and_partly_labelled_clips_are_fine(dataset: Path) -> None:
    a, b = labelled(
        dataset,
        "clips/a.mkv,2,neck,10,12,1",
        "clips/a.mkv,2,edge,10,12,0",
        "clips/b,f1.png,edge,20,16,1",
        "clips/b,f1.png,neck,1,1,1",  # outside the crop
    )
    assert a.clip.keypoint_names == b.clip.keypoint_names == ("edge", "neck")
    assert a.visible.tolist() == [[False] * 2, [False] * 2, [False, True], [False] * 2]
    np.testing.assert_allclose(points_to_pixels(a.points[2, 1], W), [10, 12 + 4], atol=1e-5)
    assert b.visible.tolist() == [[False] * 2, [True, False], [False] * 2]
    scale = 40 / 30  # 30 x 28 in a square of 40, at y = (40 - 37) // 2
    expected = [(16 + 0.5) * scale - 0.5, 1 + (14 + 0.5) * 37 / 28 - 0.5]
    np.testing.assert_allclose(points_to_pixels(b.points[1, 0], W), expected, atol=1e-5)
    assert a.absent.tolist() == [[False] * 2, [False] * 2, [True, False], [False] * 2]
    assert b.absent.tolist() == [[False] * 2, [False, True], [False] * 2]  # cropped away
    assert not a.points[~a.visible].any() and not b.points[~b.visible].any()
    beyond = "clips/a.mkv,4,neck,1,1,1"
    refused(lambda: labelled(dataset, beyond), "keypoints.csv", "4 frames")


def test_labels_up_to_the_edge_of_the_outermost_pixels_are_inside() -> None:
    labels = {"in": (9.5, 59.5), "left": (9.4, 20.0), "below": (20.0, 59.6)}
    box = Letterbox.fit(50, 50, 64)
    points, visible = place_keypoints(labels, tuple(labels), Crop(10, 10, 50, 50), box)
    assert visible.tolist() == [True, False, False]
    np.testing.assert_allclose(points[0], [-1, 1], atol=1e-6)  # the half_pixel rule


def test_labels_of_a_repeated_frame_go_to_the_one_it_repeats(tmp_path: Path) -> None:
    a, b = frames(2)
    write_video(tmp_path / "d" / "v.mkv", [a, a, b, b])
    places = {1: "10,12", 3: "1,1", 2: "20,22"}
    rows = [f"v.mkv,{frame},neck,{place},1" for frame, place in places.items()]
    (loaded,) = labelled(tmp_path / "d", *rows)
    assert loaded.visible.all()
    pixels = points_to_pixels(loaded.points[:, 0], W)
    np.testing.assert_allclose(pixels, [[10, 16], [20, 26]], atol=1e-4)


HEADER = "video,frame,keypoint,x,y,visible\n"


def table(folder: Path, text: str) -> tuple[tuple[str, ...], dict[str, Labels]]:
    (folder / "keypoints.csv").write_text(text, encoding="utf-8")
    return read_keypoints(folder / "keypoints.csv", {"a": None, "b": ["x.png", "y.png"]})


def test_table_is_read(tmp_path: Path) -> None:
    rows = "a,7,neck,1.5,2,1\na,07,edge,3,4,1\n\nb,y.png,neck,5,6,1\n"
    names, videos = table(tmp_path, HEADER + rows)
    assert names == ("edge", "neck")
    assert videos["a"] == {7: {"neck": (1.5, 2.0), "edge": (3.0, 4.0)}}
    assert videos["b"] == {1: {"neck": (5.0, 6.0)}}
    hidden = table(tmp_path, HEADER + "a,0,neck,,,0\na,1,neck,3,4,0\n")[1]["a"]
    assert np.isnan([hidden[0]["neck"], hidden[1]["neck"]]).all()


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("video,frame,keypont,x,y,visible\n", 1, "'keypoint'"),
        (HEADER + "a,0,neck,one,2,1\n", 2, "x is 'one'"),
        (HEADER + "a,0,neck,1,nan,1\n", 2, "y is 'nan'"),
        (HEADER + "a,0,neck,1,x,0\n", 2, "y is 'x'"),
        (HEADER + "a,0,neck,1,,1\n", 2, "y is ''"),
        (HEADER + "a,0,neck,1,2,yes\n", 2, "visible is 'yes'"),
        (HEADER + "a,0,ne\x07ck,1,2,1\n", 2, r"'ne\x07ck'"),
        (HEADER + "a,0,neck,1,2,1\na,1,neck,1,2,1\na,00,neck,1,2,1\n", 4, "'neck'"),
        (HEADER + 'a,0,"neck,1,2,1\n', None, "keypoints.csv"),
        (HEADER + "ab,0,neck,1,2,1\n", 2, "'ab'"),
        (HEADER + "b,z.png,neck,1,2,1\n", 2, "'z.png'"),
        *(
            (HEADER + f"a,{frame},neck,1,2,1\n", 2, "frame")
            for frame in ("", "img7.png", "-1", "1.0", "²", "9" * 5000)
        ),
    ],
)
def test_malformed_tables_name_file_and_line(
    tmp_path: Path, text: str, line: int | None, named: str
) -> None:
    place = "keypoints.csv" + (f":{line}:" if line else "")
    refused(lambda: table(tmp_path, text), place, named)


# -- the cache -------------------------------------------------------------------------------------


def test_the_cache_is_used_and_follows_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, exact = write_video(tmp_path / "v.mkv", frames(3)), tmp_path / "v.npz"
    np.savez(exact, displacement=np.full((3, H, W, 2), 0.5))
    decoded = Mock(wraps=clip_frames._decode)
    monkeypatch.setattr(clip_frames, "_decode", decoded)
    first = load(path).frames
    np.testing.assert_array_equal(load(path).frames, first)
    assert decoded.call_count == 1
    load(path, 16)
    load(path, crop=Crop(0, 0, 20, 20))
    load(path, channels=3)
    field = load(path, displacement=exact).displacement
    np.testing.assert_array_equal(load(path, displacement=exact).displacement, field)
    assert field is not None and decoded.call_count == 5
    np.savez(exact, displacement=np.ones((3, H, W, 2)))
    os.utime(exact, ns=(1, 1))
    np.testing.assert_array_equal(load(path, displacement=exact).displacement, 2 * field)
    write_video(path, frames(3, seed=9))
    os.utime(path, ns=(1, 1))
    assert not np.array_equal(load(path).frames, first)
    header, values = tmp_path / "v.mhd", tmp_path / "v.raw"
    sizes = f"NDims = 3\nDimSize = {W} {H} 3\n"
    header.write_text(f"{sizes}ElementType = MET_UCHAR\nElementDataFile = v.raw\n")
    values.write_bytes(frames(3).tobytes())
    first = load(header).frames
    values.write_bytes(frames(3, seed=9).tobytes())
    os.utime(values, ns=(1, 1))
    assert len(first) == 3 and not np.array_equal(load(header).frames, first)


def test_of_a_damaged_clip_the_good_part_is_kept_and_that_is_said_each_time(
    tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "v.mkv"
    data = write_video(path, frames(30)).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for _ in range(2):
        warn_once.cache_clear()  # as in another process
        caplog.clear()
        assert 5 < len(load(path)) < 30
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_an_unreadable_clip_leaves_nothing_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "v.mkv"
    path.write_bytes(write_video(path, frames(30)).read_bytes()[:100])
    refused(lambda: load(path), "v.mkv")
    assert not list(own_cache.iterdir())


def test_the_region_that_is_found_is_the_clips_crop(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Mock(box=Crop(2, 4, 32, 16), shape="rectangle", found=True)
    monkeypatch.setattr("sonomime.runtime.readers.source.find_region", lambda frames: found)
    path = write_video(tmp_path / "v.mkv", frames(3))
    for _ in range(2):  # decoded, and from the cache
        loaded = load(path, 32, "auto")
        assert loaded.clip.crop == Crop(2, 4, 32, 16)
        np.testing.assert_array_equal(loaded.frames[:, 8:24], frames(3)[:, 4:20, 2:34])
