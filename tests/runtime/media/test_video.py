"""Sources yield every frame, exactly, upright and at its own time."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_files import LEVELS, apart, noise

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.video import open_source
from sonomime.runtime.support.errors import InputError, UnsupportedFormat

MakeVideo = Callable[..., Path]
BlobFrames = Callable[..., list[np.ndarray]]


@pytest.fixture
def clip(tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames) -> Path:
    return make_video(tmp_path / "clip.mp4", blob_frames(12))


def test_a_clip_says_what_it_is_and_yields_its_frames(clip: Path, blob_frames: BlobFrames) -> None:
    with open_source(clip) as source:
        assert source.path == clip
        assert (source.size, source.fps, source.count_hint) == ((64, 64), Fraction(25), 12)
        some = list(itertools.islice(source, 3))
        frames = list(source)  # again, from the beginning
    assert [frame.index for frame in frames] == list(range(12))
    assert np.allclose([frame.timestamp for frame in frames], np.arange(12) / 25)
    for frame, original in zip(frames, blob_frames(12), strict=True):
        assert frame.image.dtype == np.uint8 and apart(frame.image, original).mean() < 6
    assert all(np.array_equal(a.image, b.image) for a, b in zip(some, frames, strict=False))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "within"),
    [
        ("a.mkv", "ffv1", "gray", 0),
        ("a.mov", "png", "gray", 0),
        ("a.mp4", "libx264", "yuv420p", 3),
        ("a.webm", "libvpx-vp9", "yuv420p", 3),
        ("a.avi", "mjpeg", "yuvj420p", 3),
        ("a.mpg", "mpeg2video", "yuv420p", 20),  # knows no full range: 16..235 are widened
        ("a.ts", "libx264", "yuv420p", 3),
    ],
)
def test_containers_and_codecs(
    tmp_path: Path, make_video: MakeVideo, name: str, codec: str, pix_fmt: str, within: int
) -> None:
    frames = [np.roll(LEVELS, 8 * shift, axis=1) for shift in range(6)]
    color_range = 1 if codec == "mpeg2video" else 2
    path = make_video(tmp_path / name, frames, codec, pix_fmt, color_range=color_range)
    for frame, original in zip(open_source(path), frames, strict=True):
        assert apart(frame.image, original).mean() <= within


def test_limited_range_is_widened_to_grey_levels(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", [LEVELS] * 2, color_range=1, options={"qp": "0"})
    expected = np.clip(np.round((LEVELS.astype(float) - 16) * 255 / 219), 0, 255)
    assert all(apart(frame.image, expected).max() <= 1 for frame in open_source(path))


def test_channels_are_those_asked_for(tmp_path: Path, make_video: MakeVideo) -> None:
    colour = noise(8, 8, 3).repeat(8, 0).repeat(8, 1)
    path = make_video(tmp_path / "a.mkv", [colour], "ffv1", "bgr0")
    (frame,) = open_source(path, channels=3)
    assert np.array_equal(frame.image, colour)
    (frame,) = open_source(path, channels=1)
    assert np.array_equal(frame.image, cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))
    path = make_video(tmp_path / "b.mkv", [LEVELS], "ffv1", "gray")
    (frame,) = open_source(path, channels=3)
    assert np.array_equal(frame.image, LEVELS[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_variable_frame_rates_keep_their_times_from_zero(
    tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames, name: str
) -> None:
    times = np.array([0.0, 0.04, 0.05, 0.3, 0.9, 0.95, 2.0])
    start = 5 if name == "a.ts" else 0
    path = make_video(tmp_path / name, blob_frames(7), times=list(times + start))
    read = [frame.timestamp for frame in open_source(path)]
    assert np.allclose(read, times, atol=0.0006)  # Matroska counts in milliseconds


def test_a_rotated_clip_comes_upright(tmp_path: Path, make_video: MakeVideo) -> None:
    image = np.zeros((64, 96), np.uint8)
    image[:16, :16] = 200  # top left
    path = make_video(tmp_path / "a.mp4", [image] * 2)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of a version 0 track header
    # What phones write for a portrait recording: turn clockwise by 90 degrees.
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 64 << 16, 0, 1 << 30)
    path.write_bytes(data)
    source = open_source(path)
    assert source.size == (64, 96)
    for frame in source:
        assert frame.image.shape == (96, 64)
        assert frame.image[:16, -16:].mean() > 190  # now top right
        assert frame.image[:, :32].mean() < 10


def test_a_crop_is_cut_from_every_frame(clip: Path) -> None:
    whole = list(open_source(clip))
    source = open_source(clip, crop=Crop(10, 20, 30, 24))
    assert source.size == (30, 24)
    for cut, frame in zip(source, whole, strict=True):
        assert np.array_equal(cut.image, frame.image[20:44, 10:40])
    for crop in (Crop(40, 0, 30, 30), Crop(0, 0, 4, 30)):
        with pytest.raises(InputError, match=r"clip\.mp4"):
            open_source(clip, crop=crop)


def test_a_picture_is_a_source_and_so_is_a_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1, 33):
        cv2.imwrite(str(tmp_path / f"Frame{number}.png"), np.full((16, 20), number, np.uint8))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_text("no frame either")
    single = open_source(tmp_path / "Frame33.png")
    assert (single.size, single.fps, single.count_hint) == ((20, 16), None, 1)
    assert [(frame.index, frame.timestamp, frame.image[0, 0]) for frame in single] == [(0, 0, 33)]
    source = open_source(tmp_path)
    assert source.count_hint == 4
    assert [int(frame.image[0, 0]) for frame in source] == [1, 2, 10, 33]
    assert np.allclose([frame.timestamp for frame in source], np.arange(4) / 30)
    cv2.imwrite(str(tmp_path / "Frame4.png"), noise(20, 20))
    with pytest.raises(InputError, match=r"Frame4\.png is 20 x 20"):
        list(open_source(tmp_path))


def test_a_folder_without_frames_says_what_it_could_be(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_source(tmp_path)
    assert "clip.mp4" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        open_source(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.dcm", b"whatever", "DICOM"),
        ("no_suffix", bytes(128) + b"DICM" + bytes(20), "DICOM"),
        ("a.igs.mha", b"ObjectType = Image\n", "MetaImage"),
        ("a.nii.gz", b"\x1f\x8b", "NIfTI"),
        ("a.nrrd", b"NRRD0004\n", "NRRD"),
    ],
)
def test_formats_without_a_reader_are_named(
    tmp_path: Path, name: str, content: bytes, format: str
) -> None:
    (tmp_path / name).write_bytes(content)
    places = (tmp_path / name, tmp_path) if "." in name else (tmp_path / name,)
    for place in places:
        with pytest.raises(UnsupportedFormat, match=format) as caught:
            open_source(place)
        assert caught.value.hint


def test_a_clip_may_have_any_name_but_an_images(
    tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames
) -> None:
    original = make_video(tmp_path / "a.mp4", blob_frames(3))
    for name in ("concat:a b%03d.mp4", "no_suffix", "ünï.mp4"):
        (tmp_path / name).write_bytes(original.read_bytes())
        assert len(list(open_source(tmp_path / name))) == 3
    (tmp_path / "a.png").write_bytes(original.read_bytes())
    with pytest.raises(InputError):
        open_source(tmp_path / "a.png")
