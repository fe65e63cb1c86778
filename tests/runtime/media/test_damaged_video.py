"""A damaged video gives frames or one InputError that names it. The fuzz tests more of this."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from sonomime.runtime.media.file_headers import missing_bytes
from sonomime.runtime.media.video import open_source
from sonomime.runtime.support.errors import InputError

MakeVideo = Callable[..., Path]
BlobFrames = Callable[..., list[np.ndarray]]

# Name -> codec, pixel format, options of the container.
VARIANTS: dict[str, tuple[str, str, dict[str, str]]] = {
    "plain.mp4": ("libx264", "yuv420p", {}),
    "faststart.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}),
    "fragmented.mp4": ("libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    "ffv1.mkv": ("ffv1", "gray", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "mpeg.mpg": ("mpeg1video", "yuv420p", {}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "anim.gif": ("gif", "gray", {}),
}
COUNT = 8


@pytest.fixture(scope="module")
def corpus(
    tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo, blob_frames: BlobFrames
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("corpus")
    return {
        name: make_video(
            folder / name, blob_frames(COUNT, 48, 32), codec, pix_fmt, format_options=options
        ).read_bytes()
        for name, (codec, pix_fmt, options) in VARIANTS.items()
    }


def test_sound_files_lack_nothing(corpus: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in corpus.items():
        (tmp_path / name).write_bytes(content)
        assert len(list(open_source(tmp_path / name))) == COUNT, name
        assert missing_bytes(tmp_path / name) == 0, name


@pytest.mark.parametrize(
    "name", ["plain.mp4", "faststart.mp4", "ffv1.mkv", "vp9.webm", "mjpeg.avi"]
)
def test_a_file_that_declares_its_length_is_refused_when_cut_off(
    corpus: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    for part in (0.01, 0.4, 0.8, 0.99):
        (tmp_path / name).write_bytes(corpus[name][: int(len(corpus[name]) * part)])
        with pytest.raises(InputError, match=name) as caught:
            open_source(tmp_path / name)
        assert part < 0.1 or "cut off" in caught.value.message + caught.value.hint


def test_a_recording_that_declares_no_length_is_read_as_far_as_it_goes(
    corpus: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(corpus["ffv1.mkv"])
    at = content.index(b"\x18\x53\x80\x67") + 4  # the length of the segment becomes unknown
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "a.mkv").write_bytes(content[: int(len(content) * 0.7)])
    assert missing_bytes(tmp_path / "a.mkv") == 0
    assert 0 < len(list(open_source(tmp_path / "a.mkv"))) < COUNT


def test_damage_in_the_middle_comes_after_the_frames_before_it(
    corpus: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(corpus["mjpeg.avi"])
    chunk = [at for at in range(len(content)) if content[at : at + 4] == b"00dc"][5]
    length = int.from_bytes(content[chunk + 4 : chunk + 8], "little")
    content[chunk + 8 : chunk + 8 + length] = bytes(length)
    (tmp_path / "a.avi").write_bytes(content)
    source = open_source(tmp_path / "a.avi")
    seen = []
    with pytest.raises(InputError, match=r"a\.avi after \d frames") as caught:
        for frame in source:
            seen.append(frame.index)
    # Decoders hold a frame back, and it is lost with them.
    assert seen in ([0, 1, 2, 3], [0, 1, 2, 3, 4])
    assert f"after {len(seen)} frames" in caught.value.message
    assert caught.value.hint


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


def test_what_is_not_a_file_or_holds_no_frames_is_an_input_error(tmp_path: Path) -> None:
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
    names = ("missing.mp4", "pipe.mp4", "missing/clip.mp4", "n" * 300, "empty.mkv", "sound.mkv")
    for name in names:
        with pytest.raises(InputError, match=name) as caught:
            open_source(tmp_path / name)
        assert name.endswith("mkv") or caught.value.hint


@pytest.mark.parametrize(("width", "height"), [(6, 64), (17000, 64)])
def test_a_size_out_of_bounds_is_refused(
    tmp_path: Path, make_video: MakeVideo, width: int, height: int
) -> None:
    make_video(tmp_path / "a.mkv", [np.zeros((height, width), np.uint8)], "ffv1", "gray")
    with pytest.raises(InputError, match=f"{width} x {height}"):
        open_source(tmp_path / "a.mkv")
