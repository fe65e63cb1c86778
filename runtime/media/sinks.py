"""Frames into a video file, a folder of images or one image, whole or not at all.

Everything is written under a temporary name and takes its own when it is closed without an error.
Sinks write what they are given: the synthetic mark and its metadata come from `mark.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..support.atomic_files import atomic_folder, atomic_path
from ..support.errors import ConfigError, InputError, OutputError, SonomimeError, output_error
from .file_headers import check_size
from .frames import Image, check_image, to_channels
from .png import png_bytes

_DEFAULT_FPS = Fraction(30)
# Holds the usual rates exactly, 30000/1001 included, within MPEG-4's limit of 65535.
_TIME_BASE = Fraction(1, 60_000)

# Most faithful first; which of them exist depends on how PyAV's FFmpeg was built. With the first,
# 999 of 1000 pixels of real speckle stay within 3 grey levels, half a level on average: it is tuned
# for error, because tuning for looks moves edges by up to 10 levels at the same size.
MP4_ENCODERS: tuple[tuple[str, dict[str, str]], ...] = (
    ("libx264", {"crf": "5", "preset": "veryfast", "tune": "psnr"}),
    ("libopenh264", {"b": "8M", "rc_mode": "bitrate", "allow_skip_frames": "0"}),
    ("libvpx-vp9", {"crf": "10", "b": "0", "deadline": "realtime", "cpu-used": "6"}),
    ("mpeg4", {"b": "8M", "qmin": "1", "qmax": "2"}),
)
_BT709 = 1
_FULL_RANGE = 2


def open_sink(
    path: Path | str,
    size: tuple[int, int],
    channels: int = 1,
    fps: Fraction | float | None = None,
    metadata: Mapping[str, str] | None = None,
) -> VideoSink:
    """Open a sink; use it as a context manager, so that an error removes what was written.

    Args:
        path: NAME.mp4 (H.264, 4:2:0: grey levels close to exact; an odd side is extended by one
            pixel), NAME.mkv (FFV1, exact), NAME.png (a single frame), or a name without a suffix:
            a folder of PNG files, new or empty. Parent folders are made.
        size: (width, height) of the frames to come.
        channels: 1 for grey, 3 for RGB; frames are converted.
        fps: frames a second where no timestamps are given, 30 when None.
        metadata: texts by key; "title" and "comment" are kept by every format.

    Raises:
        ConfigError: a suffix that has no writer, a frame rate that is not positive.
        InputError: a size below 8 x 8 or above 16384 pixels a side or 64 megapixels.
        OutputError: the place cannot be written, or the folder is not empty.
    """
    path = Path(path)
    check_size("the output", *size)
    kinds: dict[str, type[VideoSink]] = {
        ".mp4": _Mp4Sink,
        ".mkv": _MatroskaSink,
        ".png": _PngSink,
        "": _FolderSink,
    }
    if path.suffix.lower() not in kinds:
        raise ConfigError(
            f"cannot write {path}: there is no writer for {path.suffix}",
            "end the name in .mp4, .mkv (exact) or .png, or in nothing for a folder of frames",
        )
    rate = _DEFAULT_FPS if fps is None else Fraction(fps).limit_denominator(1_000_000)
    if rate <= 0:
        raise ConfigError(f"a frame rate has to be positive, not {fps}")
    return kinds[path.suffix.lower()](path, size, channels, rate, dict(metadata or {}))


class VideoSink(ABC):
    """Takes frames of one size; made by `open_sink`.

    Attributes:
        path: the final name, where nothing appears before `close`.
        size: (width, height) of the frames.
        count: how many frames were written.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        channels: int,
        fps: Fraction,
        metadata: dict[str, str],
    ) -> None:
        self.path = path
        self.size = size
        self.count = 0
        self._channels = channels
        self._fps = fps
        self._metadata = metadata
        self._origin = 0.0
        self._last = 0.0
        self._stack = ExitStack()
        self._closed = False
        try:
            with self._writing():
                self._open()
        except BaseException:
            self.abort()
            raise

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _put(self, image: Image, seconds: float) -> None: ...

    def _finish(self) -> None:  # noqa: B027 - files that are written at once have nothing to finish
        pass

    def _release(self) -> None:  # noqa: B027 - and hold nothing
        pass

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Everything that fails inside fails at writing, whatever the encoder calls it."""
        try:
            yield
        except SonomimeError:
            raise
        except OSError as cause:
            raise output_error(self.path, cause) from cause
        except Exception as cause:
            reason = str(cause) or type(cause).__name__
            raise OutputError(f"cannot write {self.path}: {reason}") from cause

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
        if self._closed:
            raise OutputError(f"{self.path} is closed already")
        height, width = check_image(image).shape[:2]
        if (width, height) != self.size:
            expected = " x ".join(map(str, self.size))
            raise InputError(f"{self.path} takes frames of {expected}, not {width} x {height}")
        seconds = self._last + float(1 / self._fps) if self.count else 0.0
        if timestamp is not None:
            if not math.isfinite(timestamp):
                raise InputError(f"a timestamp has to be finite, not {timestamp}")
            if self.count == 0:
                self._origin = timestamp
            seconds = timestamp - self._origin
            seconds = max(seconds, self._last)
        with self._writing():
            self._put(to_channels(image, self._channels), seconds)
        self._last = seconds
        self.count += 1

    def close(self) -> None:
        """Finish the file and give it its name; a second call does nothing.

        Raises:
            OutputError: it cannot be written, or no frame was; nothing is left behind.
        """
        if self._closed:
            return
        self._closed = True
        with self._stack:
            try:
                if self.count == 0:
                    raise OutputError(f"nothing to write to {self.path}: there were no frames")
                with self._writing():
                    self._finish()
            finally:
                self._release()

    def abort(self) -> None:
        """Remove what was written; a second call, or one after `close`, does nothing."""
        if self._closed:
            return
        self._closed = True
        with suppress(_Aborted), self._stack:
            self._release()
            raise _Aborted

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _Aborted(Exception):
    """Takes the way of an error through the temporary files."""


class _EncodedSink(VideoSink):
    """A container with one encoded stream, written by PyAV."""

    _format: str
    _pts = -1

    def _open(self) -> None:
        import av

        temporary = self._stack.enter_context(atomic_path(self.path))
        # A Python file rather than a name: its errors, the full disk above all, reach us.
        self._file = self._stack.enter_context(temporary.open("wb"))
        self._container: Any = av.open(self._file, "w", format=self._format)
        self._container.metadata.update(self._metadata)
        self._stream = self._add_stream()
        self._stream.codec_context.time_base = _TIME_BASE
        self._stream.codec_context.color_range = _FULL_RANGE

    @abstractmethod
    def _add_stream(self) -> Any: ...

    @abstractmethod
    def _frame(self, image: Image) -> Any: ...

    def _put(self, image: Image, seconds: float) -> None:
        frame = self._frame(image)
        frame.color_range = _FULL_RANGE
        frame.time_base = _TIME_BASE
        # Times are whole ticks in a file, and an encoder refuses two frames in one.
        frame.pts = self._pts = max(round(seconds / _TIME_BASE), self._pts + 1)
        frame.duration = round(1 / self._fps / _TIME_BASE)
        self._container.mux(self._stream.encode(frame))

    def _finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._file.close()

    def _release(self) -> None:
        # After an error both try to write again, to a disk that is full, and fail again.
        if container := getattr(self, "_container", None):
            with suppress(Exception):
                container.close()
        if file := getattr(self, "_file", None):
            with suppress(OSError):
                file.close()


class _Mp4Sink(_EncodedSink):
    _format = "mp4"

    def _add_stream(self) -> Any:
        import av

        width, height = (side + side % 2 for side in self.size)  # 4:2:0 wants even sides
        for name, options in MP4_ENCODERS:
            if name in av.codec.codecs_available:
                stream: Any = self._container.add_stream(name, rate=self._fps, options=options)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                return stream
        raise OutputError(
            f"cannot write {self.path}: PyAV has no encoder for .mp4",
            "install a PyAV with H.264 or VP9, or write .mkv",
        )

    def _frame(self, image: Image) -> Any:
        import av

        width, height = self.size
        edges = ((0, height % 2), (0, width % 2), (0, 0))
        image = np.pad(image, edges[: image.ndim], mode="edge")
        if image.ndim == 3:
            colour = av.VideoFrame.from_ndarray(image, "rgb24")
            frame = colour.reformat(
                format="yuv420p", dst_colorspace=_BT709, dst_color_range=_FULL_RANGE
            )
            frame.colorspace = _BT709
            return frame
        # Luma as it is and neutral chroma: no conversion that could scale the grey levels.
        planes = np.full((image.shape[0] * 3 // 2, image.shape[1]), 128, np.uint8)
        planes[: image.shape[0]] = image
        return av.VideoFrame.from_ndarray(planes, "yuv420p")


class _MatroskaSink(_EncodedSink):
    _format = "matroska"

    def _add_stream(self) -> Any:
        # Every frame stands alone: one can seek to it, and damage stays inside it.
        options = {"level": "3", "slicecrc": "1", "g": "1"}
        stream: Any = self._container.add_stream("ffv1", rate=self._fps, options=options)
        stream.width, stream.height = self.size
        stream.pix_fmt = "gray" if self._channels == 1 else "bgr0"
        return stream

    def _frame(self, image: Image) -> Any:
        import av

        if image.ndim == 2:
            return av.VideoFrame.from_ndarray(image, "gray")
        return av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="bgr0")


class _FolderSink(VideoSink):
    """Numbered PNG files; the times of the frames are not kept."""

    def _open(self) -> None:
        self._folder = self._stack.enter_context(atomic_folder(self.path))

    def _put(self, image: Image, seconds: float) -> None:
        data = png_bytes(image, self._metadata)
        (self._folder / f"frame_{self.count:06d}.png").write_bytes(data)


class _PngSink(VideoSink):
    """One frame."""

    def _open(self) -> None:
        self._temporary = self._stack.enter_context(atomic_path(self.path))

    def _put(self, image: Image, seconds: float) -> None:
        if self.count:
            raise OutputError(
                f"{self.path} holds one frame, and there are more",
                "end the name in .mp4 or .mkv, or in nothing for a folder of frames",
            )
        self._temporary.write_bytes(png_bytes(image, self._metadata))
