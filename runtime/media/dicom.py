"""Ultrasound DICOM: pictures and cines, decoded one frame at a time by pydicom's plugins, and video
streams in DICOM files, by PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError
from .dicom_file import (
    ITEM,
    Header,
    JoinedItems,
    Span,
    check_shape,
    frame_spans,
    joined_items,
    native_spans,
    opened,
    quiet,
    read_header,
    refused,
    walk_items,
)
from .dicom_header import describe, palette_of, window_of
from .source import Facts, FrameSource, Picture, Reading
from .video import OPEN_OPTIONS, VideoSource

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_BASE = "1.2.840.10008.1.2"
_VIDEO = f"{_BASE}.4.10"
_JPEG_2000 = (f"{_BASE}.4.9", f"{_BASE}.4.20")
_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"
# Never gdcm, which pydicom prefers: it ends the whole process where a frame is damaged.
_PLUGINS = {
    f"{_BASE}.4.50": ("pillow",),
    f"{_BASE}.4.51": ("pillow",),
    f"{_BASE}.4.57": ("pylibjpeg",),
    f"{_BASE}.4.70": ("pylibjpeg",),
    f"{_BASE}.4.80": ("pyjpegls",),
    f"{_BASE}.4.81": ("pyjpegls",),
    **{f"{_BASE}.4.{end}": ("pylibjpeg",) for end in (90, 91, 201, 202, 203)},  # JPEG 2000
    f"{_BASE}.5": ("pylibjpeg", "pydicom"),  # RLE; pydicom's own is far slower
}
_NATIVE = (_BASE, f"{_BASE}.1", f"{_BASE}.1.99", f"{_BASE}.2")
_YBR = ("YBR_FULL", "YBR_FULL_422")
_SPACES = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: ("RGB", *_YBR, "YBR_ICT", "YBR_RCT"),
}
_CONVERT = "convert it to Explicit VR Little Endian first (dcmconv, gdcmconv --raw), or to .mp4"
_EXTRA = (
    'pip install "sonomime[dicom]"; JPEG Lossless is not among its decoders: convert it (dcmdjpeg)'
)


def open_dicom(path: Path, how: Reading, channels: int) -> FrameSource:
    """Open a DICOM file of any transfer syntax that is read.

    Raises:
        InputError: as for `readers.open_source`, and: no pixel data, volumes, a transfer syntax
            that is unknown or has no decoder, a region that the file does not have.
        UnsupportedFormat: pydicom is missing.
    """
    header = read_header(path)
    if header.elements.get("SOPClassUID") == _VOLUME:
        raise InputError(f"{path} is a 3D volume", "export single planes of it as a cine")
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
        """Check what decoders are told, choose one, and find the frames."""
        from pydicom.pixels.decoders.base import get_decoder
        from pydicom.uid import UID

        header, path = self._header, self.path
        rows, columns, samples = header.shape
        allocated, stored = header.bits
        colours = header.text("PhotometricInterpretation")
        name = UID(header.syntax).name
        self.facts.kind = f"DICOM ({name})"
        native = header.syntax in _NATIVE
        if not native and header.syntax not in _PLUGINS:
            raise InputError(f"{path} has an unknown transfer syntax: {name}", _CONVERT)
        if native == (header.length is None):
            raise InputError(f"the pixel data of {path} are not what {name} holds", _CONVERT)
        if (
            colours not in _SPACES.get(samples, ())
            or allocated not in (8, 16)
            or not 1 <= stored <= allocated
            or (colours in _YBR and allocated != 8)
        ):
            found = f"{samples} x {stored} of {allocated} bits, {colours or 'no colour space'}"
            raise InputError(f"{path} has pixels of {found}, which are not read", _CONVERT)
        if (
            native
            and stored < allocated
            and int(header.elements.get("HighBit") or stored - 1) != stored - 1
        ):
            raise InputError(f"{path} keeps its values in the upper bits of words", _CONVERT)
        size = rows * columns * samples * allocated // 8
        if native and colours == "YBR_FULL_422":
            if (header.length or 0) >= header.frames * size:
                self.note("it says YBR_FULL_422, and is as long as YBR_FULL")
                colours = "YBR_FULL"
            else:
                size = size * 2 // 3
        self._decoder, self._plugin = get_decoder(header.syntax), ""
        if not native:
            able = self._decoder.available_plugins
            plugins = [each for each in _PLUGINS[header.syntax] if each in able]
            if not plugins:
                raise InputError(
                    f"{path} needs a decoder that is not installed, for {name}", _EXTRA
                )
            self._plugin = plugins[0]
        self._options: dict[str, Any] = {
            "rows": rows, "columns": columns, "samples_per_pixel": samples,
            "bits_allocated": allocated, "bits_stored": stored, "pixel_keyword": "PixelData",
            "pixel_representation": int(header.elements.get("PixelRepresentation") or 0),
            "planar_configuration": int(header.elements.get("PlanarConfiguration") or 0),
            "photometric_interpretation": colours, "pixel_vr": header.vr, "number_of_frames": 1,
        }  # fmt: skip
        self._spans = (
            native_spans(file, header, size) if native else frame_spans(path, file, header)
        )
        if len(self._spans) > header.frames or (
            native and (header.length or 0) >= size * (header.frames + 1)
        ):
            self.note(
                f"it holds more than the {header.frames} frames that it names; they are left out"
            )
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
                    with quiet():
                        values = self._decoded(file, span, channels)
                except MemoryError:
                    raise
                except Exception as cause:  # each decoder has its own kinds of errors
                    reason = (str(cause) or type(cause).__name__).splitlines()[-1].strip()
                    fault = f"cannot be decoded: {reason}"
                yield Picture(time, values, fault)
        if len(self._spans) < frames:
            yield Picture(None, None, "is missing: the file is cut off or damaged")

    def _decoded(self, file: Any, span: Span, channels: int) -> NDArray[Any]:
        """Values of one frame: grey, or RGB; luma alone where grey is enough."""
        if self._plugin:
            data = joined_items(file, *span)
            if not self._header.syntax.endswith(".5"):  # RLE says no size
                check_shape(data, self._header.shape)
            data += b"\0" * (len(data) % 2)
            length = len(data).to_bytes(4, "little")
            source: Any = b"".join((ITEM, bytes(4), ITEM, length, data))
        else:
            source = bytearray(span.end - span.begin)
            file.seek(span.begin)
            file.readinto(source)
        values, found = self._decoder.as_array(
            source, index=0, raw=True, decoding_plugin=self._plugin, **self._options
        )
        if self._palette is not None:
            return np.take(self._palette, values, axis=0)
        if found["photometric_interpretation"] not in _YBR:
            return values
        if channels == 1:
            return values[..., 0]
        from PIL import Image

        size = values.shape[1::-1]
        picture = Image.frombytes("YCbCr", size, np.ascontiguousarray(values).data)
        return np.array(picture.convert("RGB"))


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
        self._said = self.fps, self.facts.rate, self.aspect
        super()._look()

    def _pictures(self, channels: int) -> Iterator[Picture]:
        with self.path.open("rb") as file:
            self._stream = JoinedItems(file, self._items)
            yield from super()._pictures(channels)

    def _open(self) -> InputContainer:
        import av

        return av.open(self._stream, "r", options=OPEN_OPTIONS)

    def _describe(self, container: InputContainer, stream: Any) -> None:
        super()._describe(container, stream)
        self.facts.kind = f"DICOM, {self.facts.kind}"
        if self._times:
            self.fps, self.facts.rate, _ = self._said
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
            self.aspect = self._said[2]
        if (frame.height, frame.width) != self._header.shape[:2] and self.named_region is not None:
            self.named_region = self.facts.spacing = None
            self.note("its pictures are not of the size that it names, so its region is left out")
