"""What messages hold: pictures (IMAGE), texts (STRING), states (STATUS)."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np

from ...media.frames import Image
from ...support.errors import StreamError
from .message import decoded

# version, components, scalar type, byte order, coordinates, size, three axes and the centre in
# millimetres, where a part of it begins, the part's size
_IMAGE = struct.Struct(">HBBBB3H12f3H3H")
_STATUS = struct.Struct(">Hq20s")
_UINT8, _LITTLE, _LPS = 3, 2, 2
_SCALARS = {
    2: "int8", 3: "uint8", 4: "int16", 5: "uint16", 6: "int32", 7: "uint32",
    10: "float32", 11: "float64", 13: "complex",
}  # fmt: skip


class ReceivedImage(NamedTuple):
    """image: uint8 (H, W) or (H, W, 3), RGB; spacing: (x, y) millimetres from pixel to pixel."""

    image: Image
    spacing: tuple[float, float]


class Status(NamedTuple):
    """code: 1 is fine, 13 not ready, 2 an unknown error, more in OpenIGTLink's description."""

    code: int
    name: str
    text: str


def image_content(image: Image, spacing: tuple[float, float] = (1.0, 1.0)) -> bytes:
    """An IMAGE's content: the first pixel at the origin, rows along x and columns along y, LPS.

    Args:
        image: uint8 (H, W) or (H, W, 3), at most 65535 pixels a side.
        spacing: (x, y) millimetres from pixel to pixel.
    """
    height, width = image.shape[:2]
    size, (x, y) = (width, height, 1), spacing
    centre = (width - 1) / 2 * x, (height - 1) / 2 * y, 0.0
    axes = (x, 0.0, 0.0, 0.0, y, 0.0, 0.0, 0.0, 1.0)
    components = image.shape[2] if image.ndim == 3 else 1
    kind = 1, components, _UINT8, _LITTLE, _LPS
    head = _IMAGE.pack(*kind, *size, *axes, *centre, 0, 0, 0, *size)
    return b"".join([head, np.ascontiguousarray(image).data])


def read_image(content: bytes | memoryview) -> ReceivedImage:
    """The picture in an IMAGE's content; its place and direction in space are not looked at.

    Raises:
        StreamError: malformed, or a kind of image that is not taken: a volume, a part of an image,
            other pixels than 8 bits of grey or RGB.
    """
    if len(content) < _IMAGE.size:
        raise StreamError("an IMAGE message is malformed: it ends within its own header")
    fields = _IMAGE.unpack_from(content)
    _, components, scalar, _, _, *size = fields[:8]
    axes, part = fields[8:17], fields[20:]
    width, height, slices = size
    if part != (0, 0, 0, *size):
        hint = "let the peer send whole images"
        raise StreamError("an IMAGE message holds a part of an image only", hint)
    if slices != 1 or not (width and height):
        sides = " x ".join(map(str, size))
        raise StreamError(f"an IMAGE message holds {sides} pixels: one slice is taken")
    if scalar != _UINT8 or components not in (1, 3):
        what = f"{components} x {_SCALARS.get(scalar, f'type {scalar}')}"
        hint = "let the peer send uint8, 1 component (grey) or 3 (RGB)"
        raise StreamError(f"an IMAGE message has pixels of {what}", hint)
    pixels = np.frombuffer(content, np.uint8, offset=_IMAGE.size)
    if pixels.size != width * height * components:
        raise StreamError(
            f"an IMAGE message of {width} x {height} pixels is malformed: it has {pixels.size} "
            f"bytes of pixels"
        )
    x, y = math.hypot(*axes[:3]), math.hypot(*axes[3:6])
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise StreamError(f"an IMAGE message is malformed: its pixels are {x:g} x {y:g} mm apart")
    shape = (height, width) if components == 1 else (height, width, 3)
    return ReceivedImage(pixels.reshape(shape), (x, y))


def string_content(text: str) -> bytes:
    """A STRING's content, in UTF-8; StreamError above 65535 bytes."""
    data = text.encode()
    if len(data) > 0xFFFF:
        raise StreamError(f"a text of {len(data)} bytes is too long for a STRING message")
    return struct.pack(">HH", 3 if text.isascii() else 106, len(data)) + data


def read_string(content: bytes | memoryview) -> str:
    """The text in a STRING's content; StreamError if it is malformed."""
    if len(content) < 4 or len(content) < 4 + (length := struct.unpack_from(">2xH", content)[0]):
        raise StreamError("a STRING message is malformed: it is shorter than it says")
    (encoding,) = struct.unpack_from(">H", content)
    return decoded(content[4 : 4 + length], encoding)


def status_content(status: Status) -> bytes:
    """A STATUS's content; a name is cut to 20 bytes, the text ends with a zero byte."""
    name = status.name.encode("ascii", "replace")[:20]
    return _STATUS.pack(status.code, 0, name) + status.text.encode("ascii", "replace") + b"\0"


def read_status(content: bytes | memoryview) -> Status:
    """The state in a STATUS's content; StreamError if it is malformed."""
    if len(content) < _STATUS.size:
        raise StreamError("a STATUS message is malformed: it is too short")
    code, _, name = _STATUS.unpack_from(content)
    ends = (bytes(text).split(b"\0", 1)[0] for text in (name, content[_STATUS.size :]))
    return Status(code, *(decoded(text, 3) for text in ends))
