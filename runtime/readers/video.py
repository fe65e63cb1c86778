"""Video files, decoded by PyAV one frame at a time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..media.frames import over_black
from ..media.levels import Window
from ..media.mark import SYNTHETIC
from ..support.errors import InputError
from .decoding import decoded, reason
from .file_headers import MAX_PIXELS, check_size, missing_bytes
from .reading import IS_SYNTHETIC, Facts, Picture, Reading
from .source import FrameSource

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_DECODE_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
# Only containers that hold their own frames: playlists would open other files, or the network.
_OPEN_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,gif,"
    "ogg,flv,m4v,h264,hevc,ivf,mjpeg,nut",
    "protocol_whitelist": "file",
    **_DECODE_OPTIONS,  # the search for streams decodes too
}
_LUMA_FIRST = {f"yuv{j}{kind}p" for j in ("", "j") for kind in (420, 422, 444, 440)} | {"nv12"}
"""Formats of 8 bits whose first plane is luma."""
_FULL_RANGE = 2
_ENOUGH_STEPS = 8
"""Equal steps of time after which a larger one looks wrong."""
_BARE = ("h264", "hevc", "m4v", "mjpeg", "mpegvideo")
"""Streams without a container: they hold no times."""


class VideoSource(FrameSource):
    """A video file.

    Grey is luma alone, so it stays exact; deep grey and deep RGB values come as they are stored.
    """

    def __init__(self, path: Path, how: Reading, channels: int) -> None:
        self._missing = missing_bytes(path)
        self._adopted = False
        if self._missing and (how.on_damage == "stop" or how.strict):
            raise InputError(
                f"{path} is cut off: at least {self._missing} bytes are missing at its end",
                "copy or download it again; --on-damage keep takes what can still be read",
            )
        super().__init__(path, how, channels, Facts("video"))

    def _open(self) -> InputContainer:
        import av

        # Metadata need not be UTF-8. PyAV 19 accepts any, and no longer knows this argument.
        older = int(av.__version__.partition(".")[0]) < 19
        lenient: dict[str, Any] = {"metadata_errors": "replace"} if older else {}
        container: InputContainer = av.open(self._stream(), options=_OPEN_OPTIONS, **lenient)
        return container

    def _stream(self) -> Any:
        """What FFmpeg opens: a name, or an object that reads, seeks and tells."""
        # The prefix keeps a colon in a file name from being taken for a protocol.
        return f"file:{self.path}"

    def _pictures(self, channels: int) -> Iterator[Picture]:
        try:
            container = self._open()
        except Exception as cause:
            raise InputError(
                f"cannot open {self.path} as a video: {reason(cause)}",
                "it may be cut off, or not be a video in spite of its name",
            ) from cause
        with container:
            stream: Any = container.streams.best("video")
            if stream is None or stream.codec_context is None:
                raise InputError(f"{self.path} holds no video that can be decoded", "convert it")
            self._describe(container, stream)
            yield from self._decoded(container, stream, channels)
        if self._missing:
            fault = f"is missing: the file is cut off, by {self._missing} bytes or more"
            yield Picture(None, None, fault)

    def _describe(self, container: InputContainer, stream: Any) -> None:
        """What the container says."""
        context, facts = stream.codec_context, self.facts
        if context.width and context.height:  # otherwise the first frame says it
            check_size(self.path, context.width, context.height)
        # H.264 need not say how far pictures are out of order. FFmpeg guesses, and drops those that
        # come later than that; "strict" has it wait for all.
        strict = {"strict": "1"} if context.name == "h264" else {}
        context.options = _DECODE_OPTIONS | strict
        if container.metadata.get("title") == SYNTHETIC:
            self.note(IS_SYNTHETIC)
        name = container.format.name.partition(",")[0]
        facts.kind = f"{context.name} video ({name})"
        # Matroska states its rate or has none; FFmpeg guesses one of the smallest step.
        rate = stream.average_rate or (None if name == "matroska" else stream.guessed_rate)
        self._untimed = name in _BARE
        if self._untimed:
            facts.kind, rate = f"bare {context.name} stream", context.framerate
        known = Fraction(rate) if rate and 0 < rate < 100_000 else None
        if known and name == "matroska" and stream.time_base and known * stream.time_base == 1:
            known = None  # browsers state none, and FFmpeg then takes the clock's
        self.stated = (known, "from the file") if known else None
        self.count_hint = _frame_count(container, stream, known)
        # AVI counts packets, not pictures, which B-frames bring into another order.
        self._untimed |= name == "avi" and bool(context.has_b_frames)
        # A coarse clock, such as Matroska's milliseconds, rounds times that are even; a clock with
        # a tick for each frame does not. If several frames share a tick, only their order is left.
        self._tick = float(stream.time_base or 0)
        step = float(1 / known) if known else 0.0
        self._untimed |= 0 < step < 0.99 * self._tick
        self._tick *= self._tick < step / 2

    def _decoded(self, container: InputContainer, stream: Any, channels: int) -> Iterator[Picture]:
        def convert(frame: VideoFrame) -> NDArray[Any]:
            check_size(f"a frame of {self.path}", frame.width, frame.height)
            if not self._adopted:
                self._adopt(frame, stream)
                self._adopted = True
            return _turned(_pixels(frame, channels), *self._turn)

        rate = float(self.stated[0]) if self.stated else None
        times, origin, name = _Times(self), 0.0, container.format.name
        for count, (time, values, fault) in enumerate(decoded(container, stream, convert)):
            origin = time or 0.0 if count == 0 else origin
            even = count / rate if rate else None
            if self._untimed:
                time = even
            elif time is not None and even is not None and abs(time - origin - even) <= self._tick:
                time = origin + even
            if not self._untimed and name != "gif":  # where pauses are meant
                times.see(time)
            yield Picture(time, values, fault)

    def _adopt(self, frame: VideoFrame, stream: Any) -> None:
        """What the first frame says."""
        form, facts = frame.format, self.facts
        colours = sum(not part.is_alpha for part in form.components)
        facts.bits = max(part.bits for part in form.components)
        facts.colour = colours > 1 or bool(form.has_palette)
        self.scaled = _is_deep(frame) and colours > 1 and facts.bits < 16
        if _is_deep(frame) and facts.bits < 16:
            # Grey is as it is stored; PyAV brings RGB to 16 bits.
            most = (1 << facts.bits) - 1 if colours == 1 else 65535
            self.declared = Window(0, most), "as the file says"
        if frame.interlaced_frame:
            self.note("it is interlaced: edges that move look like combs")
        aspect = float(stream.sample_aspect_ratio or 1)
        # Of the first frame alone: a frame that was asked for such data is freed much later.
        self._turn = _turn(frame)
        self.aspect = 1 / aspect if self._turn[0] else aspect
        if len(stream.container.streams.video) > 1:
            self.note("it has several video streams: the first that fits is read, the others not")


class _Times:
    """Looks for a lost packet: decoders go on without it, and only the times have a hole."""

    def __init__(self, source: VideoSource) -> None:
        self._source = source
        self._last: float | None = None
        self._steps: list[float] = []  # the first ones
        self._said = False

    def see(self, time: float | None) -> None:
        """The next frame's time in seconds."""
        if time is not None and self._last is not None and not self._said:
            step, steps = time - self._last, self._steps
            if len(steps) < _ENOUGH_STEPS:
                steps.append(step)
            elif max(steps) < 1.1 * min(steps) + 0.002 and step > 1.5 * max(steps):
                self._said = True
                self._source.note(f"after {self._last:.2f} s frames may be missing: times jump")
        self._last = time


def _frame_count(container: InputContainer, stream: Any, fps: Fraction | None) -> int | None:
    if stream.frames > 0:
        return int(stream.frames)
    if container.duration and container.duration > 0 and fps:
        return max(1, round(container.duration / 1_000_000 * fps))  # microseconds
    return None


def _is_deep(frame: VideoFrame) -> bool:
    """Whether its values are grey or RGB of more than 8 bits, which are not full range for sure."""
    form = frame.format
    grey = form.name.startswith("gray")
    return (grey or form.is_rgb) and max(part.bits for part in form.components) > 8


def _luma(frame: VideoFrame) -> NDArray[Any]:
    """The plane of luma, which is FFmpeg's conversion to grey, level by level, in a fifth of its
    time. 16..235 become 0..255 unless the frame says that it has the full range."""
    import cv2

    plane: Any = frame.planes[0]
    luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    luma = np.array(luma[: frame.height, : frame.width])
    if frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj"):
        return luma
    widened = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(luma, widened))


def _pixels(frame: VideoFrame, channels: int) -> NDArray[Any]:
    """Values at full range, as they lie. Grey is luma alone, so it stays exact."""
    form = frame.format
    values: NDArray[Any]
    deep, grey = _is_deep(frame), form.name.startswith("gray")
    if any(part.is_alpha for part in form.components):
        values = over_black(frame.to_ndarray(format="rgba64le" if deep else "rgba"))
    elif deep:
        values = frame.to_ndarray(format=form.name if grey else "rgb48le")
    elif channels == 1 and form.name in _LUMA_FIRST:
        values = _luma(frame)
    elif channels == 1 and not (form.is_rgb or form.has_palette):
        values = frame.to_ndarray(format="gray")
    else:
        values = frame.to_ndarray(format="rgb24")
    return values


def _turned(values: NDArray[Any], lies: bool, left: bool, up: bool) -> NDArray[Any]:
    values = values.swapaxes(0, 1) if lies else values
    return np.ascontiguousarray(values[:: -1 if up else 1, :: -1 if left else 1])


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Whether rows become columns; whether what then comes is turned left to right, upside down."""
    from av.sidedata.sidedata import Type

    found: Any = frame.side_data
    matrix = found.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return False, False, False
    # x' = a x + c y, y' = b x + d y
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    lies = abs(b) > abs(a)
    return lies, (c if lies else a) < 0, (b if lies else d) < 0
