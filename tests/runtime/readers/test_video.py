"""Sources yield every frame, exactly, upright and at its own time, or one InputError that names the
file. The fuzz tests more damage."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from media_files import LEVELS, apart, noise

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.file_headers import missing_bytes
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import InputError, UnsupportedFormat

MakeVideo = Callable[..., Path]
BlobFrames = Callable[..., list[np.ndarray]]


@pytest.fixture
def clip(tmp_path: Path, make_video: MakeVideo, blob_frames: BlobFrames) -> Path:
    return make_video(tmp_path / "clip.mp4", blob_frames(12))


def test_a_clip_says_what_it_is_and_yields_its_frames(clip: Path, blob_frames: BlobFrames) -> None:
    source = open_source(clip)
    assert source.path == clip
    assert (source.size, source.fps, source.count_hint) == ((64, 64), Fraction(25), 12)
    some = list(itertools.islice(source, 3))
    frames = list(source)  # again, from the beginning
    assert [frame.index for frame in frames] == list(range(12))
    assert np.allclose([frame.timestamp for frame in frames], np.arange(12) / 25)
    for frame, original in zip(frames, blob_frames(12), strict=True):
        assert frame.image.dtype == np.uint8 and apart(frame.image, original).mean() < 6
    assert all(np.array_equal(a.image, b.image) for a, b in zip(some, frames, strict=False))


def test_limited_range_is_widened_to_grey_levels(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", [LEVELS] * 2, color_range=1, options={"qp": "0"})
    expected = np.clip(np.round((LEVELS.astype(float) - 16) * 255 / 219), 0, 255)
    assert all(apart(frame.image, expected).max() <= 1 for frame in open_source(path))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_luma_is_what_ffmpeg_makes_grey_of(
    tmp_path: Path, make_video: MakeVideo, pix_fmt: str
) -> None:
    for size, color_range in (((64, 64), 1), ((70, 46), 2), ((70, 46), 0)):
        images = [noise(*size[::-1], 3, seed=i) for i in range(2)]
        path = make_video(tmp_path / "a.mkv", images, "ffv1", pix_fmt, color_range=color_range)
        with av.open(str(path)) as container:
            grey = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
        assert np.array_equal([frame.image for frame in open_source(path)], grey)


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


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((0, 1, -1, 0), (0, 200, 0, 90)),  # turned clockwise by 90 degrees
        ((-1, 0, 0, -1), (0, 0, 90, 200)),
        ((0, -1, 1, 0), (90, 0, 200, 0)),
        ((-1, 0, 0, 1), (90, 200, 0, 0)),  # mirrored, as by front cameras
        ((1, 0, 0, -1), (0, 0, 200, 90)),
        ((0, 1, 1, 0), (200, 0, 90, 0)),
    ],
)
def test_turned_and_mirrored_clips_come_as_they_are_shown(
    tmp_path: Path, make_video: MakeVideo, matrix: tuple[int, ...], corners: tuple[int, ...]
) -> None:
    image = np.zeros((64, 96), np.uint8)
    image[:16, :16], image[:16, -16:] = 200, 90
    path = make_video(tmp_path / "a.mp4", [image] * 2)
    data = bytearray(path.read_bytes())
    a, b, c, d = (each << 16 for each in matrix)
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    shown = next(iter(open_source(path))).image
    assert shown.shape == ((96, 64) if matrix[0] == 0 else (64, 96))
    found = [int(shown[y, x]) for y in (5, -6) for x in (5, -6)]
    assert np.abs(np.array(found) - corners).max() <= 3


def test_what_is_wrong_with_a_clip_is_noted(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.ts", SHIFTED, options={"flags": "+ildct"})
    assert any("interlaced" in note for note in open_source(path).facts.notes)
    with av.open(str(tmp_path / "two.mkv"), "w") as container:
        streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 128, 128, "gray"
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(LEVELS, "gray")))
            container.mux(stream.encode(None))
    assert any("streams" in note for note in open_source(tmp_path / "two.mkv").facts.notes)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(UnsupportedFormat):
        open_source(tmp_path / "a.heic")


def test_a_crop_is_cut_from_every_frame(clip: Path) -> None:
    whole = list(open_source(clip))
    source = open_source(clip, Reading(Crop(10, 20, 30, 24)))
    assert source.size == (30, 24)
    for cut, frame in zip(source, whole, strict=True):
        assert np.array_equal(cut.image, frame.image[20:44, 10:40])
    for crop in (Crop(40, 0, 30, 30), Crop(0, 0, 4, 30)):
        with pytest.raises(InputError, match=r"clip\.mp4"):
            open_source(clip, Reading(crop))


# -- pictures, folders, names ----------------------------------------------------------------------


def test_a_picture_is_a_source_and_so_is_a_folder_in_natural_order(
    tmp_path: Path, clip: Path
) -> None:
    with pytest.raises(InputError) as caught:
        open_source(tmp_path)
    assert "clip.mp4" in caught.value.hint  # what it could be
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        open_source(tmp_path / "empty")
    for number in (10, 2, 1, 33):
        cv2.imwrite(str(tmp_path / f"Frame{number}.png"), np.full((16, 20), number, np.uint8))
    (tmp_path / ".hidden.png").write_text("no frame")
    single = open_source(tmp_path / "Frame33.png")
    assert (single.size, single.fps, single.count_hint) == ((20, 16), None, 1)
    assert [(frame.index, frame.timestamp, frame.image[0, 0]) for frame in single] == [(0, 0, 33)]
    source = open_source(tmp_path)
    assert source.count_hint == 4
    assert [int(frame.image[0, 0]) for frame in source] == [1, 2, 10, 33]
    assert np.allclose([frame.timestamp for frame in source], np.arange(4) / 30)


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.nii.gz", b"\x1f\x8b", "NIfTI"),
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


def test_a_clip_may_have_any_name_but_an_images(clip: Path) -> None:
    for name in ("concat:a b%03d.mp4", "no_suffix", "ünï.mp4"):
        clip.with_name(name).write_bytes(clip.read_bytes())
        assert len(list(open_source(clip.with_name(name)))) == 12
    clip.with_name("a.png").write_bytes(clip.read_bytes())
    with pytest.raises(InputError):
        open_source(clip.with_name("a.png"))


# -- containers, and damage ------------------------------------------------------------------------

COUNT = 6
SHIFTED = [np.roll(LEVELS, 8 * shift, axis=1) for shift in range(COUNT)]
# Name -> codec, pixel format, options of the container, how many levels a pixel is off on average.
VARIANTS: dict[str, tuple[str, str, dict[str, str], int]] = {
    "plain.mp4": ("libx264", "yuv420p", {}, 3),
    "faststart.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}, 3),
    "fragmented.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}, 3),
    "png.mov": ("png", "gray", {}, 0),
    "ffv1.mkv": ("ffv1", "gray", {}, 0),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}, 3),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}, 3),
    "mpeg.mpg": ("mpeg2video", "yuv420p", {}, 20),  # knows no full range: 16..235 are widened
    "h264.ts": ("libx264", "yuv420p", {}, 3),
    "anim.gif": ("gif", "gray", {}, 0),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("corpus")
    return {
        name: make_video(
            folder / name, SHIFTED, codec, pix_fmt, format_options=options,
            color_range=1 if codec == "mpeg2video" else 2,
        ).read_bytes()
        for name, (codec, pix_fmt, options, _) in VARIANTS.items()
    }  # fmt: skip


def test_containers_and_codecs(corpus: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in corpus.items():
        (tmp_path / name).write_bytes(content)
        for frame, original in zip(open_source(tmp_path / name), SHIFTED, strict=True):
            assert apart(frame.image, original).mean() <= VARIANTS[name][3], name
        assert missing_bytes(tmp_path / name) == 0, name


@pytest.mark.parametrize(
    "name", ["plain.mp4", "faststart.mp4", "ffv1.mkv", "vp9.webm", "mjpeg.avi"]
)
def test_of_a_file_that_is_cut_off_the_rest_is_kept_or_it_is_refused(
    corpus: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    path, read = tmp_path / name, []
    for part in (0.01, 0.4, 0.8, 0.99):
        path.write_bytes(corpus[name][: int(len(corpus[name]) * part)])
        with pytest.raises(InputError, match=name):
            open_source(path, Reading(on_damage="stop"))
        try:
            source = open_source(path)
        except InputError:  # not even one frame, or the index is at the end
            continue
        frames = list(source)
        assert source.damage is not None and source.damage.frame == len(frames)
        for frame, original in zip(frames, SHIFTED, strict=False):
            assert apart(frame.image, original).mean() <= VARIANTS[name][3]
        read.append(len(frames))
    assert sorted(read) == read and max(read) >= COUNT - 2


def test_a_recording_that_declares_no_length_is_read_as_far_as_it_goes(
    corpus: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(corpus["ffv1.mkv"])
    at = content.index(b"\x18\x53\x80\x67") + 4  # the length of the segment becomes unknown
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "a.mkv").write_bytes(content[: int(len(content) * 0.7)])
    assert missing_bytes(tmp_path / "a.mkv") == 0
    assert 0 < len(list(open_source(tmp_path / "a.mkv"))) < COUNT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is a text\n" * 200,
        b"\0" * 5000,
        b"ffconcat version 1.0\nfile other.mp4\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.ts\n#EXT-X-ENDLIST\n",
        b"<?xml version='1.0'?><MPD></MPD>",
    ],
    ids=["empty", "text", "zeros", "concat list", "playlist", "manifest"],
)
def test_what_is_not_a_video_is_refused_whatever_its_name(
    corpus: dict[str, bytes], tmp_path: Path, content: bytes
) -> None:
    # A list must not lead to these files.
    (tmp_path / "other.mp4").write_bytes(corpus["plain.mp4"])
    (tmp_path / "other.ts").write_bytes(corpus["h264.ts"])
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot open .*clip\.mp4 as a video"):
        open_source(tmp_path / "clip.mp4")


def test_what_holds_no_frames_of_a_possible_size_is_an_input_error(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with av.open(str(tmp_path / "empty.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "gray"
        container.start_encoding()
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for side in (6, 17000):
        image = np.zeros((64, side), np.uint8)
        make_video(tmp_path / f"{side} x 64.mkv", [image], "ffv1", "gray")
    names = ("missing.mp4", "pipe.mp4", "missing/clip.mp4", "n" * 300, "empty.mkv", "sound.mkv")
    for name in (*names, "6 x 64.mkv", "17000 x 64.mkv"):
        with pytest.raises(InputError, match=name) as caught:
            open_source(tmp_path / name)
        assert caught.value.hint
        assert " x " not in name or f"is {name[:-4]} pixels" in caught.value.message
