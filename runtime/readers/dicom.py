"""Ultrasound DICOM: pictures and cines, decoded one frame at a time by pydicom's plugins, and video
streams in DICOM files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError
from .dicom_codecs import NATIVE, NoDecoder, decoder_of
from .dicom_file import (
    Header,
    JoinedItems,
    Span,
    frame_spans,
    joined_items,
    native_spans,
    opened,
    read_header,
    refused,
    walk_items,
)
from .dicom_header import describe, palette_of, window_of
from .reading import Facts, Picture, Reading
from .source import FrameSource
from .video import VideoSource

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_VIDEO = "1.2.840.10008.1.2.4.10"  # and one digit more
_CONVERT = "convert it to Explicit VR Little Endian first (dcmconv, gdcmconv --raw), or to .mp4"


def open_dicom(path: Path, how: Reading, channels: int) -> FrameSource:
    """Open a DICOM file of any transfer syntax that is read.

    Raises:
        InputError: as for `readers.open_source`, and: no pixel data, volumes, a transfer syntax
            that is unknown or has no decoder, a region that the file does not have.
        UnsupportedFormat: pydicom is missing.
    """
    header = read_header(path)
    kind = _DicomVideo if header.syntax.startswith(_VIDEO) else _DicomPictures
    return kind(path, how, channels, header)


class _DicomPictures(FrameSource):
    """Frames that each stand alone, compressed or not."""

    def __init__(self, path: Path, how: Reading, channels: int, header: Header) -> None:
        self._header = header
        super().__init__(path, how, channels, Facts("DICOM"))

    def _look(self) -> None:
        with refused(self.path), opened(self.path) as file:
            self._times = describe(self, self._header)
            self._prepare(file)
        super()._look()

    def _prepare(self, file: Any) -> None:
        """Choose the decoder, and find the frames."""
        from pydicom.uid import UID

        header, path = self._header, self.path
        rows, columns, samples = header.shape
        allocated, stored = header.bits
        colours = header.text("PhotometricInterpretation")
        name = UID(header.syntax).name
        self.facts.kind = f"DICOM, {name}"
        self._native = header.syntax in NATIVE
        size, length = rows * columns * samples * allocated // 8, header.length or 0
        if self._native == (header.length is None):
            raise InputError(f"the pixel data of {path} are not what {name} holds", _CONVERT)
        if self._native and stored < allocated and header.number("HighBit", stored - 1) >= stored:
            raise InputError(f"{path} keeps its values in the upper bits of words", _CONVERT)
        if self._native and colours == "YBR_FULL_422":
            if length >= header.frames * size:
                self.note("it says YBR_FULL_422, and is as long as YBR_FULL")
                colours = "YBR_FULL"
            else:
                size = size * 2 // 3
        try:
            self._decode = decoder_of(header, colours)
        except NoDecoder as cause:
            hint = 'pip install "sonomime[dicom]"' if cause.install else _CONVERT
            raise InputError(f"cannot read {path}: {cause}", hint) from cause
        if self._native:
            self._spans = native_spans(file, header, size)
        else:
            self._spans = frame_spans(path, file, header)
        if len(self._spans) > header.frames or length >= size * (header.frames + 1):
            self.note(f"it holds more than the {header.frames} frames that it names")
        self.count_hint = header.frames
        self._palette = palette_of(header) if colours == "PALETTE COLOR" else None
        self.facts.colour = samples == 3 or self._palette is not None
        if self._palette is None:
            self.declared = window_of(self, header)

    def _pictures(self, channels: int) -> Iterator[Picture]:
        frames = self._header.frames
        with opened(self.path) as file:
            for index, span in enumerate(self._spans[:frames]):
                time = self._times[index] if self._times else None
                values, fault = None, ""
                try:
                    values = self._values(file, span, channels)
                except MemoryError:
                    raise
                except Exception as cause:  # each decoder has its own kinds of errors
                    reason = (str(cause) or type(cause).__name__).splitlines()[-1].strip()
                    fault = f"cannot be decoded: {reason}"
                yield Picture(time, values, fault)
        if len(self._spans) < frames:
            yield Picture(None, None, "is missing: the file is cut off or damaged")

    def _values(self, file: Any, span: Span, channels: int) -> NDArray[Any]:
        if self._native:
            data: Any = np.empty(span.end - span.begin, np.uint8)
            file.seek(span.begin)
            file.readinto(data)
        else:
            data = joined_items(file, *span)
        values = self._decode(data, channels)
        return values if self._palette is None else np.take(self._palette, values, axis=0)


class _DicomVideo(VideoSource):
    """A video stream in the items of a DICOM file."""

    def __init__(self, path: Path, how: Reading, channels: int, header: Header) -> None:
        self._header = header
        super().__init__(path, how, channels)

    def _look(self) -> None:
        header = self._header
        with refused(self.path), opened(self.path) as file:
            self._times = describe(self, header)
            self._items = walk_items(self.path, file, header) if header.length is None else []
            if not self._items:
                raise InputError(f"{self.path} holds no video", "copy or export it again")
            self._missing = max(0, self._items[-1].end - file.end)
        self._said = self.stated, self.aspect
        super()._look()

    def _pictures(self, channels: int) -> Iterator[Picture]:
        with self.path.open("rb") as file:
            self._joined = JoinedItems(file, self._items)
            yield from super()._pictures(channels)

    def _stream(self) -> Any:
        return self._joined

    def _describe(self, container: InputContainer, stream: Any) -> None:
        super()._describe(container, stream)
        self.facts.kind = f"DICOM, {self.facts.kind}"
        if self._times:
            self.stated = self._said[0]
        if self._header.frames > 1:
            self.count_hint = self._header.frames

    def _decoded(self, container: InputContainer, stream: Any, channels: int) -> Iterator[Picture]:
        index = 0
        for picture in super()._decoded(container, stream, channels):
            if picture.values is not None:
                if index < len(self._times):
                    picture = picture._replace(time=self._times[index])
                index += 1
            yield picture

    def _adopt(self, frame: VideoFrame, stream: Any) -> None:
        super()._adopt(frame, stream)
        if "PixelAspectRatio" in self._header.elements:
            self.aspect = self._said[1]
        if (frame.height, frame.width) != self._header.shape[:2] and self.named_region is not None:
            self.named_region = self.facts.spacing = None
            self.note("its pictures are not of the size that it names, so its region is left out")
