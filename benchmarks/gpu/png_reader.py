"""The golden pictures without OpenCV: 8-bit grey or RGB PNG, not interlaced, and no other."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

from ...runtime.media.frames import Image
from ...runtime.support.errors import InputError

_CHANNELS = {0: 1, 2: 3}  # by PNG's colour type


def read_png(path: Path) -> Image:
    """uint8 (H, W) or (H, W, 3).

    Raises:
        InputError: it is another kind of PNG, or none.
    """
    data = path.read_bytes()
    try:
        width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
        if depth != 8 or interlaced or colour not in _CHANNELS:
            raise InputError(f"{path} is not an 8-bit grey or RGB PNG", "use OpenCV for others")
        packed, position = b"", 8
        while position < len(data):
            (length,) = struct.unpack(">I", data[position : position + 4])
            if data[position + 4 : position + 8] == b"IDAT":
                packed += data[position + 8 : position + 8 + length]
            position += 12 + length
        channels = _CHANNELS[colour]
        raw = np.frombuffer(zlib.decompress(packed), np.uint8)
        rows = raw.reshape(height, 1 + width * channels)
    except (struct.error, zlib.error, ValueError) as error:
        raise InputError(f"{path} is no PNG, or is damaged: {error}", "copy it again") from None
    lines = np.zeros((height + 1, width * channels), np.uint8)  # the first is above the picture
    for y, row in enumerate(rows):
        lines[y + 1] = _unfiltered(int(row[0]), row[1:], lines[y], channels)
    picture = lines[1:].reshape(height, width, channels)
    return np.ascontiguousarray(picture[..., 0] if channels == 1 else picture)


def _unfiltered(kind: int, row: Image, above: Image, step: int) -> Image:
    """Undo a line's filter (PNG, third edition, section 9)."""
    if kind in (0, 2):
        return row + above if kind else row
    if kind > 4:
        raise ValueError(f"filter {kind}")
    line, up = [0] * step + row.tolist(), [0] * step + above.tolist()  # black to the left of it
    for i in range(step, len(line)):
        left, top, corner = line[i - step], up[i], up[i - step]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + top) // 2
        else:
            guess = min((left, top, corner), key=lambda value: abs(left + top - corner - value))
        line[i] = (line[i] + guess) & 255
    return np.array(line[step:], np.uint8)
