"""Frames into a video or DICOM file, a folder of images or one image, completely or not at all.

Everything is written under a temporary name and gets its own name at the end, if there was no
error. Sinks write what they are given: the synthetic mark and its metadata come from `mark.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from fractions import Fraction
from itertools import count
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..support.atomic_files import atomic_folder, atomic_path
from ..support.errors import ConfigError, InputError, OutputError, SonomimeError, output_error
from .dicom_sink import DicomWriter
from .file_headers import check_size
from .folder import TIMES
from .frames import Image, check_image, png_bytes, to_channels
from .metaimage import metaimage_writer

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
# Checksums would be those of the file before that.
_MKV_OPTIONS = {"write_crc32": "0"}

_INSTANT = 1e-6
"""Seconds between frames whose times do not increase."""

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

_Put: TypeAlias = Callable[[Image, float], None]
"""Writes an image of the right size and channels at a time in seconds."""


@contextmanager
def open_sink(
    path: Path | str,
    size: tuple[int, int],
    channels: int = 1,
    fps: Fraction | float | None = None,
    metadata: Mapping[str, str] | None = None,
    spacing: tuple[float, float] | None = None,
    burned_in: bool = False,
) -> Iterator[VideoSink]:
    """Yield a sink for frames. The output gets its name at the end; on an error it is removed.

    Args:
        path: NAME.mp4 (H.264, 4:2:0: grey levels close to exact; an odd side is extended by one
            pixel), NAME.mkv (FFV1, exact), NAME.dcm (DICOM ultrasound, exact), NAME.mha (MetaImage,
            exact), both not packed, NAME.png (a single frame), or a name without a suffix: a folder
            of PNG files and a table of their times, new or empty. Parent folders are made.
        size: (width, height) of the frames to come.
        channels: 1 for grey, 3 for RGB; frames are converted.
        fps: frames a second where no timestamps are given, 30 when None.
        metadata: texts by key; "title" and "comment" are kept by every format.
        spacing: (x, y) millimetres from one pixel to the next, where the format keeps it.
        burned_in: whether the frames may show who was examined; DICOM says it.

    Raises:
        ConfigError: a suffix that has no writer, a frame rate that is not positive.
        InputError: a size below 8 x 8 or above 16384 pixels a side or 64 megapixels.
        OutputError: the place cannot be written, the folder is not empty, no frame was written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_size("the output", *size)
    if suffix not in (".mp4", ".mkv", ".dcm", ".mha", ".png", ""):
        raise ConfigError(
            f"cannot write {path}: there is no writer for {path.suffix}",
            "end the name in .mp4, .mkv, .dcm or .mha (exact), or .png, or in nothing for a folder",
        )
    rate = Fraction(30 if fps is None else fps).limit_denominator(1_000_000)
    if rate <= 0:
        raise ConfigError(f"a frame rate has to be positive, not {fps}")
    with atomic_path(path) if suffix else atomic_folder(path) as temporary:
        texts = metadata or {}
        writer: AbstractContextManager[_Put]
        if suffix in (".png", ""):
            writer = _png_writer(path, temporary, texts)
        elif suffix == ".mha":
            writer = metaimage_writer(temporary, size, channels, texts, spacing)
        elif suffix == ".dcm":
            writer = _dicom(path, temporary, size, channels, rate, texts, spacing, burned_in)
        else:
            writer = _encoder(path, temporary, size, channels, rate, texts)
        with writer as put:
            sink = VideoSink(path, size, channels, rate, put)
            yield sink
            if sink.count == 0:
                raise OutputError(f"nothing to write to {path}: there were no frames")


class VideoSink:
    """Takes frames of one size; made by `open_sink`. `count`: how many were written."""

    def __init__(
        self, path: Path, size: tuple[int, int], channels: int, fps: Fraction, put: _Put
    ) -> None:
        self.count = 0
        self._path, self._size, self._channels = path, size, channels
        self._step = float(1 / fps)
        self._put = put
        self._origin = self._last = 0.0

    def write(self, image: Image, timestamp: float | None = None) -> None:
        """Write the next frame.

        Args:
            image: uint8 (H, W) or (H, W, 3) of the sink's size.
            timestamp: seconds; only differences count. None: one frame interval after the last. A
                time that does not increase is moved to just after the last.

        Raises:
            InputError: an image of another size or type, a timestamp that is not finite.
            OutputError: it cannot be written, for example because the disk is full.
        """
        height, width = check_image(image).shape[:2]
        if (width, height) != self._size:
            expected = " x ".join(map(str, self._size))
            raise InputError(f"{self._path} takes frames of {expected}, not {width} x {height}")
        seconds = self._last + self._step if self.count else 0.0
        if timestamp is not None:
            if not math.isfinite(timestamp):
                raise InputError(f"a timestamp has to be finite, not {timestamp}")
            if self.count == 0:
                self._origin = timestamp
            seconds = max(timestamp - self._origin, self._last + _INSTANT if self.count else 0.0)
        with _writing(self._path):
            self._put(to_channels(image, self._channels), seconds)
        self._last = seconds
        self.count += 1


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Whatever fails inside is a failed write, whichever error the encoder raises."""
    try:
        yield
    except SonomimeError:
        raise
    except OSError as cause:
        raise output_error(path, cause) from cause
    except Exception as cause:
        reason = str(cause) or type(cause).__name__
        raise OutputError(f"cannot write {path}: {reason}") from cause


@contextmanager
def _png_writer(path: Path, temporary: Path, metadata: Mapping[str, str]) -> Iterator[_Put]:
    """Writes numbered files and the table of their times into a folder, or one file."""
    numbered = (temporary / f"frame_{i:06d}.png" for i in count())
    files = numbered if temporary.is_dir() else iter([temporary])
    table = ["frame,seconds"]

    def put(image: Image, seconds: float) -> None:
        file = next(files, None)
        if file is None:
            raise OutputError(
                f"{path} holds one frame, and there are more",
                "end the name in .mp4 or .mkv, or in nothing for a folder of frames",
            )
        file.write_bytes(png_bytes(image, metadata))
        table.append(f"{file.name},{seconds:.9f}")

    yield put
    if temporary.is_dir():
        (temporary / TIMES).write_text("\n".join([*table, ""]))


@contextmanager
def _dicom(path: Path, temporary: Path, *how: Any) -> Iterator[_Put]:
    with _writing(path):
        frames = TemporaryFile(dir=temporary.parent)  # noqa: SIM115 - closing can fail too
    try:
        writer = DicomWriter(path, frames, *how)
        yield writer.put
        with _writing(path):
            writer.finish(temporary)
    finally:
        with suppress(OSError):  # a full disk that fails once more
            frames.close()


@contextmanager
def _encoder(
    path: Path, temporary: Path, size: tuple[int, int], channels: int, fps: Fraction,
    metadata: Mapping[str, str],
) -> Iterator[_Put]:  # fmt: skip
    """Encodes one stream into a container by PyAV."""
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
        with _writing(path):
            # A Python file rather than a name, so that its errors (a full disk) are raised here.
            file = temporary.open("wb")
            if exact:
                container = av.open(file, "w", format="matroska", options=_MKV_OPTIONS)
            else:
                container = av.open(file, "w", format="mp4")
            container.metadata.update(metadata)
            stream = _add_stream(container, exact, size, channels, fps)
        yield put
        with _writing(path):
            send(None)
            container.close()
            file.close()
            if exact:
                _set_clock(path, temporary)
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
