"""Pixels of one DICOM frame from its bytes: JPEG by Pillow, JPEG Lossless by PyAV, and what else is
compressed by pydicom's plugins."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .dicom_file import CODESTREAM, ITEM, Header, quiet

Decode: TypeAlias = Callable[[Any, int], NDArray[Any]]
"""The bytes of a frame, and whether 1 channel is enough or 3 are asked for -> values (H, W) or
(H, W, 3), RGB. Raises any kind of error on damaged bytes."""

_BASE = "1.2.840.10008.1.2"
NATIVE = (_BASE, f"{_BASE}.1", f"{_BASE}.1.99", f"{_BASE}.2")
_JPEG = (f"{_BASE}.4.50", f"{_BASE}.4.51")
_JPEG_LOSSLESS = (f"{_BASE}.4.57", f"{_BASE}.4.70")
# Never gdcm, which pydicom prefers: it ends the whole process where a frame is damaged.
_PLUGINS = {
    f"{_BASE}.4.80": ("pyjpegls",),
    f"{_BASE}.4.81": ("pyjpegls",),
    **{f"{_BASE}.4.{end}": ("pylibjpeg",) for end in (90, 91, 201, 202, 203)},  # JPEG 2000
    f"{_BASE}.5": ("pylibjpeg", "pydicom"),  # RLE; pydicom's own is far slower
}
YBR = ("YBR_FULL", "YBR_FULL_422")
_SPACES = {
    1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"),
    3: ("RGB", *YBR, "YBR_ICT", "YBR_RCT"),
}
_SIZES = (*(0xC0 + i for i in range(16) if i not in (4, 8, 12)), 0xF7)  # the last is of JPEG-LS


class NoDecoder(Exception):
    """Pixels of this kind are not read: the message says which. `install`: a package is missing."""

    def __init__(self, message: str, install: bool = False) -> None:
        super().__init__(message)
        self.install = install


def decoder_of(header: Header, colours: str) -> Decode:
    """Who decodes the frames of a file.

    Args:
        colours: its photometric interpretation.

    Raises:
        NoDecoder: nobody.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    syntax, samples = header.syntax, header.shape[2]
    allocated, stored = header.bits
    if (
        colours not in _SPACES.get(samples, ())
        or allocated not in (8, 16)
        or not 1 <= stored <= allocated
        or (colours in YBR and allocated != 8)
        or (syntax in _JPEG and stored != 8)
    ):
        kind = f"{samples} x {stored} of {allocated} bits, {colours or 'no colour space'}"
        raise NoDecoder(f"pixels of {kind} ({UID(syntax).name}) are not read")
    if syntax in _JPEG:
        return lambda data, channels: _jpeg(data, header.shape, colours, channels)
    if syntax in _JPEG_LOSSLESS:
        return lambda data, channels: _to_rgb(
            _jpeg_lossless(data, header.shape, stored), colours, channels
        )
    if syntax in NATIVE:
        return lambda data, channels: _to_rgb(_native(data, header, colours), colours, channels)
    if syntax not in _PLUGINS:
        raise NoDecoder(f"the transfer syntax {UID(syntax).name} is not read")
    decoder = get_decoder(syntax)
    plugins = [each for each in _PLUGINS[syntax] if each in decoder.available_plugins]
    if not plugins:
        raise NoDecoder(f"a decoder for {UID(syntax).name} is not installed", install=True)
    options: dict[str, Any] = {
        "rows": header.shape[0], "columns": header.shape[1], "samples_per_pixel": samples,
        "bits_allocated": allocated, "bits_stored": stored, "pixel_keyword": "PixelData",
        "pixel_representation": header.number("PixelRepresentation"),
        "planar_configuration": header.number("PlanarConfiguration"),
        "photometric_interpretation": colours, "number_of_frames": 1,
    }  # fmt: skip

    def decode(data: Any, channels: int) -> NDArray[Any]:
        if not syntax.endswith(".5"):  # RLE states no size
            _check_shape(data, header.shape)
        data += b"\0" * (len(data) % 2)
        data = b"".join((ITEM, bytes(4), ITEM, len(data).to_bytes(4, "little"), data))
        with quiet():
            values, found = decoder.as_array(
                data, index=0, raw=True, decoding_plugin=plugins[0], **options
            )
        return _to_rgb(values, str(found["photometric_interpretation"]), channels)

    return decode


def _native(data: NDArray[np.uint8], header: Header, colours: str) -> NDArray[Any]:
    (rows, columns, samples), (allocated, stored) = header.shape, header.bits
    swapped = header.order == ">" and allocated == 8 and header.vr == "OW"
    if swapped:  # bytes in words of 16 bits
        data = data.view(np.uint16).byteswap().view(np.uint8)
    kind = "i" if header.number("PixelRepresentation") else "u"
    values: NDArray[Any] = data.view(f"{header.order}{kind}{allocated // 8}")
    if colours == "YBR_FULL_422":  # Y1 Y2 B R for every two pixels
        pairs = values.reshape(rows, columns // 2, 1, 4)
        luma = pairs[..., :2].swapaxes(2, 3)
        chroma = pairs[..., 2:].repeat(2, axis=2)
        values = np.concatenate([luma, chroma], axis=3).reshape(rows, columns, 3)
    elif samples == 1:
        values = values.reshape(rows, columns)
    elif header.number("PlanarConfiguration"):
        values = np.ascontiguousarray(np.moveaxis(values.reshape(3, rows, columns), 0, 2))
    else:
        values = values.reshape(rows, columns, 3)
    unused = allocated - stored  # what is in there is nobody's
    return values << unused >> unused if unused else values


def _to_rgb(values: NDArray[Any], colours: str, channels: int) -> NDArray[Any]:
    if colours not in YBR:
        return values
    if channels == 1:  # luma, which is the grey of these colours but where they leave 0..255
        return values[..., 0]
    from PIL import Image

    size = values.shape[1], values.shape[0]
    picture = Image.frombytes("YCbCr", size, np.ascontiguousarray(values).data)
    return np.array(picture.convert("RGB"))


def _jpeg(
    data: bytes, shape: tuple[int, int, int], colours: str, channels: int
) -> NDArray[np.uint8]:
    """libjpeg converts colours on the way, which is several times faster. It goes by the markers of
    JPEG alone, but DICOM by its own header where there are none."""
    from PIL import Image

    with quiet(), Image.open(BytesIO(data), formats=("JPEG",)) as picture:
        found = picture.size[1], picture.size[0], len(picture.getbands())
        if found != shape:
            raise ValueError("it is {1} x {0} pixels of {2} samples".format(*found))
        marked = picture.info.get("adobe_transform")
        letters = [part[0] for part in getattr(picture, "layer", ())] == [*b"RGB"]
        converts = "jfif" in picture.info or (not letters if marked is None else marked == 1)
        if shape[2] == 1:
            return np.array(picture)
        luma_first = "jfif" in picture.info or marked == 1 or (colours in YBR and not letters)
        if converts and (channels == 1 or not luma_first):
            picture.draft("L" if luma_first else "YCbCr", picture.size)
        values = np.array(picture)
        return values if converts or not luma_first else _to_rgb(values, "YBR_FULL", channels)


def _jpeg_lossless(data: bytes, shape: tuple[int, int, int], bits: int) -> NDArray[Any]:
    from av import CodecContext, Packet, VideoFrame

    _check_shape(data, shape)
    context: Any = CodecContext.create("mjpeg", "r")
    context.options = {"err_detect": "explode"}
    (frame,) = context.decode(Packet(data)) + context.decode(None)
    assert isinstance(frame, VideoFrame)
    if frame.format.is_rgb:
        return frame.to_ndarray(format="rgb24")
    values: NDArray[Any] = frame.to_ndarray()
    if values.ndim == 3:
        return np.ascontiguousarray(np.moveaxis(values, 0, 2))  # its planes, whatever they hold
    return values >> (16 - bits) if values.dtype == np.uint16 else values  # FFmpeg fills the words


def _check_shape(data: bytes, shape: tuple[int, int, int]) -> None:
    """Compare the size that a JPEG, JPEG-LS or JPEG 2000 picture says with the (rows, columns,
    samples) that are expected, so that a decoder takes no more memory than is meant."""
    if not data.startswith(b"\xff\xd8"):
        at = data.index(CODESTREAM)
        right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
        found = bottom - top, right - left, *struct.unpack_from(">H", data, at + 40)
    else:
        at = 2
        while data[at + 1] not in _SIZES:
            at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
            if data[at] != 0xFF:
                raise ValueError("it is no picture")
        found = struct.unpack_from(">HHB", data, at + 5)
    if found != shape:
        raise ValueError("it is {1} x {0} pixels of {2} samples".format(*found))
