"""Frames from a video file, a single image or a folder of images, one at a time.

Convention: `timestamp` is in seconds from the first frame, which is 0.0, and increases strictly.
Images are uint8, (H, W) for one channel and (H, W, 3) RGB for three, rotated as the file says.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ..support.errors import InputError, UnsupportedFormat
from .file_headers import IMAGE, MAX_PIXELS, VIDEO, check_size, kind_by_name, kind_of, missing_bytes
from .frames import Crop, Image, crop_image, read_image, to_channels

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

#: For sources without timestamps and frame rate.
DEFAULT_FPS = Fraction(30)

_DECODE_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
# Only containers that hold their own frames: playlists would open other files, or the network.
_OPEN_OPTIONS = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,gif,"
    "ogg,flv,m4v,h264,hevc,ivf,mjpeg,nut",
    "protocol_whitelist": "file",
    **_DECODE_OPTIONS,  # the search for streams decodes too
}


class Frame(NamedTuple):
    """One frame: its number from 0, its time in seconds from the first frame, its pixels."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    timestamp: float
    image: Image


class FrameSource(ABC):
    """Frames of one size in order, read as they are asked for; each iteration begins again.

    Attributes:
        path: where they come from.
        fps: the average frame rate, or None when the source states none.
        size: (width, height) of every frame, after rotation and crop.
        count_hint: how many frames to expect, or None; only a hint.
    """

    fps: Fraction | None = None
    count_hint: int | None = None

    def __init__(self, path: Path, crop: Crop | None, channels: int) -> None:
        self.path = path
        self._crop = crop
        self._channels = channels
        first = next(self._images(), None)
        if first is None:
            raise InputError(f"{path} has no frames", "check that it plays; it may be cut off")
        height, width = first[1].shape[:2]
        self._full_size = self.size = width, height
        if crop is not None:
            crop_image(first[1], crop, str(path))
            check_size(f"the crop of {path}", crop.w, crop.h)
            self.size = crop.w, crop.h

    @abstractmethod
    def _images(self) -> Iterator[tuple[float | None, Image]]:
        """Time in seconds, or None when unknown, and pixels of every frame, uncropped."""

    def __iter__(self) -> Iterator[Frame]:
        step = float(1 / (self.fps or DEFAULT_FPS))
        origin, last = 0.0, -step
        for index, (time, image) in enumerate(self._images()):
            height, width = image.shape[:2]
            if (width, height) != self._full_size:
                expected = " x ".join(map(str, self._full_size))
                raise InputError(
                    f"{self._name(index)} is {width} x {height} pixels, not {expected}",
                    "all frames have to have the size of the first",
                )
            if index == 0:
                origin = time or 0.0
            timestamp = last + step if time is None else time - origin
            if timestamp <= last:  # damaged or repeated times: the clock must go on
                timestamp = last + step
            last = timestamp
            if self._crop is not None:
                image = np.ascontiguousarray(crop_image(image, self._crop))
            yield Frame(index, timestamp, image)

    def _name(self, index: int) -> str:
        return f"{self.path}: frame {index}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:  # noqa: B027 - an iteration closes what it opens
        pass


class _Images(FrameSource):
    """One image, or the images of a folder at the default frame rate."""

    def __init__(self, path: Path, crop: Crop | None, channels: int) -> None:
        self._files = frame_files(path) if path.is_dir() else [path]
        self.count_hint = len(self._files)
        super().__init__(path, crop, channels)

    def _images(self) -> Iterator[tuple[float | None, Image]]:
        for file in self._files:
            yield None, to_channels(read_image(file), self._channels)

    def _name(self, index: int) -> str:
        return str(self._files[index])


class _Video(FrameSource):
    """A video file, decoded by PyAV as its frames are asked for."""

    def __init__(self, path: Path, crop: Crop | None, channels: int) -> None:
        if missing := missing_bytes(path):
            raise InputError(
                f"{path} is cut off: at least {missing} bytes are missing at its end",
                "copy or download it again",
            )
        super().__init__(path, crop, channels)

    def _images(self) -> Iterator[tuple[float | None, Image]]:
        count = 0
        try:
            with _opened(self.path) as container:
                stream: Any = container.streams.best("video")
                if stream is None or stream.codec_context is None:
                    raise InputError(
                        f"{self.path} holds no video that can be decoded", "convert it"
                    )
                context = stream.codec_context
                if context.width and context.height:  # otherwise the first frame says it
                    check_size(self.path, context.width, context.height)
                context.options = _DECODE_OPTIONS
                rate = stream.average_rate or stream.guessed_rate
                self.fps = Fraction(rate) if rate and 0 < rate < 100_000 else None
                self.count_hint = _frame_count(container, stream, self.fps)
                for packet in container.demux(stream):
                    if packet.is_corrupt:
                        raise ValueError("a packet is incomplete")
                    for frame in packet.decode():
                        if frame.is_corrupt:
                            raise ValueError("its pixels are incomplete")
                        check_size(f"frame {count} of {self.path}", frame.width, frame.height)
                        yield frame.time, _pixels(frame, self._channels)
                        count += 1
        except InputError:
            raise
        except Exception as cause:  # PyAV raises many kinds of errors on a damaged file
            raise InputError(
                f"cannot decode {self.path} after {count} frames: {_reason(cause)}",
                "the file is damaged or cut off; convert or copy it again",
            ) from cause


#: Who reads what `kind_of` names; a folder holds images.
READERS: dict[str, type[FrameSource]] = {IMAGE: _Images, VIDEO: _Video}


def open_source(path: Path | str, crop: Crop | None = None, channels: int = 1) -> FrameSource:
    """Open a video file, an image (a source of one frame) or a folder of images in natural order.

    The first frame is decoded at once, so that an unusable file is refused here. The file is open
    only during an iteration, with one frame of it in memory.

    Args:
        path: a video (MP4, MOV, Matroska, WebM, AVI, MPEG, GIF ...), an image (PNG, JPEG, BMP,
            TIFF) or a folder of such images; files are recognised by content, not by name.
        crop: the part of every frame to keep, in pixels of the frame as it is displayed.
        channels: 1 for grey, 3 for RGB.

    Raises:
        InputError: missing, not a video or image, cut off, no frames, a size below 8 x 8 or above
            16384 a side or 64 megapixels, a crop that reaches outside; while iterating: damage that
            the decoder reports (saying after how many frames; some decoders conceal it), a change
            of size.
        UnsupportedFormat: DICOM, MetaImage, NIfTI, NRRD.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path} does not exist", "check the path")
        if not path.is_dir() and not path.is_file():
            raise InputError(f"{path} is neither a file nor a folder", "name a video or image")
        kind = IMAGE if path.is_dir() else kind_of(path)
        if kind not in READERS:
            raise _unsupported(path, kind)
        return READERS[kind](path, crop, channels)
    except OSError as cause:
        raise InputError(f"cannot read {path}: {_reason(cause)}", "check permissions") from cause


def frame_files(folder: Path) -> list[Path]:
    """The frames of a folder, in the order in which `open_source` reads them.

    Raises:
        InputError: the folder holds none.
        UnsupportedFormat: it holds files of a format without a reader instead.
        OSError: it cannot be listed.
    """
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    kinds = {file: kind_by_name(file) for file in files}
    images = [file for file in files if kinds[file] == IMAGE and file.is_file()]
    if images:
        return sorted(images, key=_natural_order)
    for file, kind in kinds.items():
        if kind is not None and kind not in READERS:
            raise _unsupported(file, kind)
    hint = "frames are .png, .jpg, .bmp or .tif files"
    if videos := [file for file in files if kinds[file] == VIDEO]:
        hint = f"name one of its videos, for example {min(videos)}"
    raise InputError(f"the folder {folder} holds no frames", hint)


def _natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Sort key that puts frame2 before frame10."""
    pieces = re.split(r"([0-9]+)", path.name.lower())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pieces]


def _unsupported(path: Path, name: str) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"{path} is {name}, which has no reader yet",
        "convert it to .mp4, .mkv or a folder of .png frames first",
    )


def _reason(cause: Exception) -> str:
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__


def _opened(path: Path) -> InputContainer:
    import av

    # Metadata need not be UTF-8. PyAV 19 accepts any, and no longer knows this argument.
    older = int(av.__version__.partition(".")[0]) < 19
    lenient: dict[str, Any] = {"metadata_errors": "replace"} if older else {}
    try:
        # The prefix keeps a colon in a file name from being taken for a protocol.
        container: InputContainer = av.open(f"file:{path}", options=_OPEN_OPTIONS, **lenient)
        return container
    except Exception as cause:
        raise InputError(
            f"cannot open {path} as a video: {_reason(cause)}",
            "it may be cut off, or not be a video in spite of its name",
        ) from cause


def _frame_count(container: InputContainer, stream: Any, fps: Fraction | None) -> int | None:
    if stream.frames > 0:
        return int(stream.frames)
    if container.duration and container.duration > 0 and fps:
        return max(1, round(container.duration / 1_000_000 * fps))  # microseconds
    return None


def _pixels(frame: VideoFrame, channels: int) -> Image:
    """Pixels at full range, upright. Grey is luma alone, so it stays exact."""
    colour = frame.format.is_rgb or frame.format.has_palette
    if channels == 1 and not colour:
        image = frame.to_ndarray(format="gray")
    else:
        image = to_channels(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), channels)
    turns = round(frame.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(image, turns), dtype=np.uint8)
