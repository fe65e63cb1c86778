"""Frames into a video file by PyAV: H.264 in MP4, or FFV1 in Matroska."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..media.frames import Image
from ..support.errors import OutputError
from .writing import Put, writing

if TYPE_CHECKING:
    from av import VideoFrame

# Holds the usual rates exactly, 30000/1001 included, within MPEG-4's limit of 65535.
_TIME_BASE = Fraction(1, 60_000)

# FFmpeg gives Matroska a clock of milliseconds, on which fast frames share a time. So it writes
# times that are a hundred times too long, and then the file is told that a tick has 10 us. These
# are the element TimestampScale with its length, and its values in nanoseconds.
_MKV_TICK, _MKV_TICKS = Fraction(1, 100_000), Fraction(1, 1000)
_MKV_SCALE = b"\x2a\xd7\xb1\x83"
_MKV_WRITTEN, _MKV_TRUE = (nanoseconds.to_bytes(3, "big") for nanoseconds in (1_000_000, 10_000))
# Checksums would be those of the file before that. What is written is in the file at once.
_MKV_OPTIONS = {"write_crc32": "0", "flush_packets": "1"}
# Of a file that grows: fragments that can be played each, of about a second.
_MP4_GROWING = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000",
    "flush_packets": "1",
}  # fmt: skip

# Most faithful first; PyAV's FFmpeg may lack some of them. With the first, 999 of 1000 pixels of
# real speckle stay within 3 grey levels, half a level on average. It is tuned for error, because
# tuning for looks moves edges by up to 10 levels at the same size.
MP4_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "5", "preset": "veryfast", "tune": "psnr"}),
    ("libopenh264", {"b": "8M", "rc_mode": "bitrate", "allow_skip_frames": "0"}),
    ("libvpx-vp9", {"crf": "10", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
    ("mpeg4", {"b": "8M", "qmin": "1", "qmax": "2"}),
)
# Every frame stands alone: players can seek to it, and damage stays inside it.
_EXACT_ENCODER = ("ffv1", {"level": "3", "slicecrc": "1", "g": "1"})
_BT709 = 1
_FULL_RANGE = 2


@contextmanager
def video_writer(
    path: Path, temporary: Path, size: tuple[int, int], channels: int, fps: Fraction,
    metadata: Mapping[str, str], grows: bool = False,
) -> Iterator[Put]:  # fmt: skip
    """Encodes one stream into a container by PyAV. `grows`: what is written can be played before
    the file is whole, which FFV1 in Matroska always can."""
    import av

    exact = path.suffix.lower() == ".mkv"
    tick = _MKV_TICK if exact else _TIME_BASE
    last = -1

    def put(image: Image, seconds: float) -> None:
        nonlocal last
        frame = _frame(image, exact)
        frame.color_range = _FULL_RANGE
        frame.time_base = _MKV_TICKS if exact else tick
        # Times are whole ticks in a file, and an encoder refuses two frames in one.
        frame.pts = last = max(round(seconds / tick), last + 1)
        send(frame)

    def send(frame: VideoFrame | None) -> None:
        for packet in stream.encode(frame):
            packet.duration = round(1 / fps / tick)
            container.mux(packet)

    file: Any = None
    container: Any = None
    try:
        with writing(path):
            # A Python file rather than a name, so that its errors (a full disk) are raised here.
            file = temporary.open("wb", buffering=0)
            if exact:
                container = av.open(file, "w", format="matroska", options=_MKV_OPTIONS)
            else:
                options = _MP4_GROWING if grows else {}
                container = av.open(file, "w", format="mp4", options=options)
            container.metadata.update(metadata)
            stream = _add_stream(container, exact, size, channels, fps)
            if grows and not exact:
                stream.codec_context.gop_size = max(1, round(fps))
            if exact:
                container.start_encoding()
                _set_clock(path, temporary)
        yield put
        with writing(path):
            send(None)
            container.close()
            file.close()
            if exact:
                _set_clock(path, temporary)  # again: the end wrote it once more
                _set_duration(temporary)
    finally:
        for opened in (container, file):
            with suppress(Exception):  # None, or a full disk that fails once more
                opened.close()


def _set_clock(path: Path, temporary: Path) -> None:
    with temporary.open("r+b") as opened:
        at = opened.read(4096).find(_MKV_SCALE + _MKV_WRITTEN)
        if at < 0:
            raise OutputError(f"cannot write {path}: FFmpeg wrote another clock", "write .mp4")
        opened.seek(at + len(_MKV_SCALE))
        opened.write(_MKV_TRUE)


def _set_duration(temporary: Path) -> None:
    """FFmpeg writes the duration also as a text, by its own clock."""
    with temporary.open("r+b") as opened:
        head = opened.read(1 << 16)
        if found := re.search(rb"DURATION.{0,16}?(\d+):(\d\d):(\d\d\.\d{9})", head, re.DOTALL):
            written = 3600 * int(found[1]) + 60 * int(found[2]) + float(found[3])
            true = written * float(_MKV_TICK / _MKV_TICKS)
            text = (
                f"{int(true // 3600):0{len(found[1])}}:{int(true // 60 % 60):02}:{true % 60:012.9f}"
            )
            opened.seek(found.start(1))
            opened.write(text.encode())


def _add_stream(
    container: Any, exact: bool, size: tuple[int, int], channels: int, fps: Fraction
) -> Any:
    import av

    encoders = (_EXACT_ENCODER,) if exact else MP4_ENCODERS
    found = [encoder for encoder in encoders if encoder[0] in av.codec.codecs_available]
    if not found:
        names = ", ".join(name for name, _ in encoders)
        raise OutputError(
            f"PyAV has none of the encoders for this output: {names}",
            "install a PyAV that has one, or write .mkv or .png",
        )
    stream: Any = container.add_stream(found[0][0], rate=fps, options=found[0][1])
    context = stream.codec_context
    if exact:
        stream.width, stream.height = size
        stream.pix_fmt = "gray" if channels == 1 else "bgr0"
    else:
        stream.width, stream.height = (side + side % 2 for side in size)  # 4:2:0 wants even sides
        stream.pix_fmt = "yuv420p"
        context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.time_base = _MKV_TICKS if exact else _TIME_BASE
    context.color_range = _FULL_RANGE
    return stream


def _frame(image: Image, exact: bool) -> VideoFrame:
    from av import VideoFrame

    if exact:
        if image.ndim == 2:
            return VideoFrame.from_ndarray(image, "gray")
        return VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")
    height, width = image.shape[:2]
    edges = ((0, height % 2), (0, width % 2), (0, 0))
    image = np.pad(image, edges[: image.ndim], mode="edge")
    if image.ndim == 3:
        frame = VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_FULL_RANGE
        )
        frame.colorspace = _BT709
        return frame
    # Luma as it is and neutral chroma: no conversion that could scale the grey levels.
    planes = np.full((image.shape[0] * 3 // 2, image.shape[1]), 128, np.uint8)
    planes[: image.shape[0]] = image
    return VideoFrame.from_ndarray(planes, "yuv420p")
