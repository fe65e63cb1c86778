"""PNG files that carry their description inside."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

from ..support.errors import OutputError
from .frames import Image, check_image


def png_bytes(image: Image, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of a uint8 image, (H, W) or (H, W, 3) RGB, with texts as iTXt chunks (UTF-8).

    Raises:
        InputError: not an image.
    """
    import cv2

    ordered = np.ascontiguousarray(check_image(image)[..., ::-1] if image.ndim == 3 else image)
    done, encoded = cv2.imencode(".png", ordered)
    if not done:
        raise OutputError("cannot encode an image as PNG")
    data = encoded.tobytes()
    texts = b"".join(_text_chunk(key, value) for key, value in (metadata or {}).items())
    after_header = 8 + 25  # signature and IHDR
    return data[:after_header] + texts + data[after_header:]


def _text_chunk(key: str, value: str) -> bytes:
    keyword = key[:1].upper() + key[1:79]
    body = b"iTXt" + keyword.encode("latin-1", "replace") + b"\0" * 5 + value.encode()
    return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
