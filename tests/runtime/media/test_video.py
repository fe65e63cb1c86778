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

from sonomime.runtime.media import file_headers as sniff
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.video import open_source
from sonomime.runtime.support.errors import InputError, UnsupportedFormat

MakeVideo = Callable[..., Path]
BlobFrames = Callable[..., list[np.ndarray]]

LEVELS = np.repeat(np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16), 8, 0), 8, 1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def clip(tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames) -> Path:
    return make_video(tmp_path / "clip.mp4", blob_frames(12))


def test_a_clip_says_what_it_is_and_yields_its_frames(clip: Path, blob_frames: BlobFrames) -> None:
    with open_source(clip) as source:
        assert source.path == clip
        assert (source.size, source.fps, source.count_hint) == ((64, 64), Fraction(25), 12)
        assert source.seekable
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(12))
    assert np.allclose([frame.timestamp for frame in frames], np.arange(12) / 25)
    for frame, original in zip(frames, blob_frames(12), strict=True):
        assert frame.image.dtype == np.uint8 and frame.image.shape == (64, 64)
        assert np.abs(frame.image.astype(int) - original).mean() < 6


def test_a_source_can_be_iterated_again_also_halfway(clip: Path) -> None:
    source = open_source(clip)
    some = list(itertools.islice(source, 3))
    everything = list(source)
    assert len(everything) == 12
    assert all(np.array_equal(a.image, b.image) for a, b in zip(some, everything, strict=False))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "exact"),
    [
        ("a.mkv", "ffv1", "gray", True),
        ("a.avi", "ffv1", "gray", True),
        ("a.mov", "png", "gray", True),
        ("a.mp4", "libx264", "yuv420p", False),
        ("a.webm", "libvpx-vp9", "yuv420p", False),
        ("a.avi", "mjpeg", "yuvj420p", False),
        ("a.mpg", "mpeg2video", "yuv420p", False),
        ("a.ts", "libx264", "yuv420p", False),
    ],
)
def test_containers_and_codecs(
    tmp_path: Path, make_video: MakeVideo, name: str, codec: str, pix_fmt: str, exact: bool
) -> None:
    frames = [np.roll(LEVELS, 8 * shift, axis=1) for shift in range(6)]
    # MPEG-2 knows no full range: its luma is written as it is and read as 16..235.
    full = codec != "mpeg2video"
    path = make_video(tmp_path / name, frames, codec, pix_fmt, color_range=2 if full else 1)
    read = list(open_source(path))
    assert len(read) == 6
    for frame, original in zip(read, frames, strict=True):
        if exact:
            assert np.array_equal(frame.image, original)
        elif full:
            assert np.abs(frame.image.astype(int) - original).mean() < 3


def test_limited_range_is_widened_to_grey_levels(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", [LEVELS] * 2, color_range=1, options={"qp": "0"})
    expected = np.clip(np.round((LEVELS.astype(float) - 16) * 255 / 219), 0, 255)
    for frame in open_source(path):
        assert np.abs(frame.image - expected).max() <= 1


def test_colour_comes_as_rgb_and_becomes_grey_by_luma(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    colour = np.kron(noise(8, 8, 3), np.ones((8, 8, 1), np.uint8))
    path = make_video(tmp_path / "a.mkv", [colour] * 2, "ffv1", "bgr0")
    assert all(np.array_equal(frame.image, colour) for frame in open_source(path, channels=3))
    grey = cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)
    assert all(np.array_equal(frame.image, grey) for frame in open_source(path, channels=1))


def test_grey_video_becomes_colour_by_repetition(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mkv", [LEVELS], "ffv1", "gray")
    (frame,) = open_source(path, channels=3)
    assert np.array_equal(frame.image, np.repeat(LEVELS[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_variable_frame_rates_keep_their_times(
    tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames, name: str
) -> None:
    times = [0.0, 0.04, 0.05, 0.3, 0.9, 0.95, 2.0]
    path = make_video(tmp_path / name, blob_frames(7), times=times)
    read = [frame.timestamp for frame in open_source(path)]
    assert np.allclose(read, times, atol=0.0006)  # Matroska counts in milliseconds


def test_times_begin_at_zero(
    tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames
) -> None:
    path = make_video(tmp_path / "a.ts", blob_frames(4), times=[5.0, 5.1, 5.3, 5.4])
    read = [frame.timestamp for frame in open_source(path)]
    assert np.allclose(read, [0.0, 0.1, 0.3, 0.4], atol=0.0006)


def test_what_is_no_file_has_a_hint() -> None:
    with pytest.raises(InputError, match="neither a file nor a folder") as caught:
        open_source(Path("/dev/null"))
    assert caught.value.hint


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


@pytest.mark.parametrize("crop", [Crop(40, 0, 30, 30), Crop(0, 0, 4, 30)])
def test_a_crop_outside_or_too_small_is_refused(clip: Path, crop: Crop) -> None:
    with pytest.raises(InputError, match=r"clip\.mp4"):
        open_source(clip, crop=crop)


def test_an_image_is_a_source_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), noise(40, 50))
    source = open_source(tmp_path / "a.png")
    assert (source.size, source.fps, source.count_hint) == ((50, 40), None, 1)
    (frame,) = source
    assert (frame.index, frame.timestamp) == (0, 0.0)
    assert np.array_equal(frame.image, noise(40, 50))


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1, 33):
        cv2.imwrite(str(tmp_path / f"Frame{number}.png"), np.full((16, 16), number, np.uint8))
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_text("no frame either")
    source = open_source(tmp_path)
    assert source.count_hint == 4
    assert [int(frame.image[0, 0]) for frame in source] == [1, 2, 10, 33]
    assert np.allclose([frame.timestamp for frame in source], np.arange(4) / 30)


def test_a_folder_of_different_sizes_is_refused_by_name(tmp_path: Path) -> None:
    for number, side in ((1, 16), (2, 20)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), noise(side, side))
    with pytest.raises(InputError, match=r"2\.png is 20 x 20"):
        list(open_source(tmp_path))


def test_a_folder_without_frames_says_what_it_could_be(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(InputError, match="holds no frames") as caught:
        open_source(tmp_path)
    assert "clip.mp4" in caught.value.hint
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no frames"):
        open_source(empty)


@pytest.mark.parametrize(
    ("name", "content", "called"),
    [
        ("a.dcm", b"whatever", "DICOM"),
        ("no_suffix", bytes(128) + b"DICM" + bytes(20), "DICOM"),
        ("a.igs.mha", b"ObjectType = Image\n", "MetaImage"),
        ("a.nii.gz", b"\x1f\x8b", "NIfTI"),
        ("a.nrrd", b"NRRD0004\n", "NRRD"),
    ],
)
def test_formats_without_a_reader_are_named(
    tmp_path: Path, name: str, content: bytes, called: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnsupportedFormat, match=called) as caught:
        open_source(tmp_path / name)
    assert "convert" in caught.value.hint
    assert not sniff.kind_of(tmp_path / name).readable
    if "." in name:
        with pytest.raises(UnsupportedFormat):
            open_source(tmp_path)


def test_a_clip_may_be_called_anything(
    tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames
) -> None:
    original = make_video(tmp_path / "a.mp4", blob_frames(3))
    for name in ("concat:a b%03d.mp4", "no_suffix", "a.png", "ünï.mp4"):
        path = tmp_path / name
        path.write_bytes(original.read_bytes())
        if name == "a.png":
            with pytest.raises(InputError):  # the name promises an image, the content is none
                open_source(path)
        else:
            assert len(list(open_source(path))) == 3


def test_the_shared_clips_are_read_to_their_end(shared_data: Path) -> None:
    for path in sorted((shared_data / "test" / "clips").glob("lung_Reg*"))[:2]:
        with open_source(path) as source:
            count = sum(1 for _ in source)
        assert source.count_hint is not None
        assert abs(count - source.count_hint) <= 2
