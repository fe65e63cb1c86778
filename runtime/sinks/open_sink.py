"""Frames into a video or DICOM file, a folder of images or one image, completely or not at all.

Everything is written under a temporary name and gets its own name at the end, if there was no
error. Sinks write what they are given: the synthetic mark and its metadata come from `mark.py`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path

from ..media.frames import Image, check_image, to_channels
from ..readers.file_headers import check_size
from ..support.atomic_files import atomic_folder, atomic_path, growing_path, refuse_cut_off
from ..support.errors import ConfigError, InputError, OutputError, output_errors
from .dicom import dicom_writer
from .metaimage import metaimage_writer
from .pictures import picture_writer
from .video import video_writer
from .writing import Put, writing

GROWING = (".mp4", ".mkv")
SUFFIXES = (*GROWING, ".dcm", ".mha", ".png", "")

_INSTANT = 1e-6
"""Seconds between frames whose times do not increase."""


def check_place(path: Path, grows: bool = False) -> None:
    """Refuse what `open_sink` would refuse, before there is a frame.

    Raises:
        ConfigError: a suffix that has no writer.
        OutputError: the place cannot be written; a recording that was cut off is there.
    """
    if (suffix := path.suffix.lower()) not in SUFFIXES:
        raise ConfigError(
            f"cannot write {path}: there is no writer for {path.suffix}",
            "end the name in .mp4, .mkv, .dcm or .mha (exact), or .png, or in nothing for a folder",
        )
    if grows and suffix in GROWING:
        refuse_cut_off(path)
    with output_errors(path):
        there = next(each for each in path.absolute().parents if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise OutputError(f"cannot write {path}: {there} cannot be written", "choose another")


@contextmanager
def open_sink(
    path: Path | str,
    size: tuple[int, int],
    channels: int = 1,
    fps: Fraction | float | None = None,
    metadata: Mapping[str, str] | None = None,
    spacing: tuple[float, float] | None = None,
    burned_in: bool | None = None,
    grows: bool = False,
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
        burned_in: whether the frames show who was examined, if that is known; DICOM says it.
        grows: NAME.mp4 and NAME.mkv can be played from the first second on, under NAME.part until
            they are whole; they stay there on an error or a kill.

    Raises:
        ConfigError: a suffix that has no writer, a frame rate that is not positive.
        InputError: a size below 8 x 8 or above 16384 pixels a side or 64 megapixels.
        OutputError: the place cannot be written, the folder is not empty, no frame was written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check_size("the output", *size)
    if suffix not in SUFFIXES:
        check_place(path)
    rate = Fraction(30 if fps is None else fps).limit_denominator(1_000_000)
    if rate <= 0:
        raise ConfigError(f"a frame rate has to be positive, not {fps}")
    grows = grows and suffix in GROWING
    place = growing_path if grows else atomic_path if suffix else atomic_folder
    with place(path) as temporary:
        texts = metadata or {}
        writer: AbstractContextManager[Put]
        if suffix in (".png", ""):
            writer = picture_writer(path, temporary, texts)
        elif suffix == ".mha":
            writer = metaimage_writer(path, temporary, size, channels, texts, spacing)
        elif suffix == ".dcm":
            writer = dicom_writer(path, temporary, size, channels, rate, texts, spacing, burned_in)
        else:
            writer = video_writer(path, temporary, size, channels, rate, texts, grows)
        with writer as put:
            sink = VideoSink(path, size, channels, rate, put)
            yield sink
            if sink.count == 0:
                raise OutputError(f"nothing to write to {path}: there were no frames")


class VideoSink:
    """Takes frames of one size; made by `open_sink`. `count`: how many were written."""

    def __init__(
        self, path: Path, size: tuple[int, int], channels: int, fps: Fraction, put: Put
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
        with writing(self._path):
            self._put(to_channels(image, self._channels), seconds)
        self._last = seconds
        self.count += 1
