"""PNG files that carry their description."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping

from .frames import Image, check_image


def png_bytes(image: Image, metadata: Mapping[str, str] | None = None) -> bytes:
    """A PNG file of a uint8 image, (H, W) or (H, W, 3) RGB, with texts as iTXt chunks (UTF-8).

    Raises:
        InputError: not an image.
    """
    from PIL import Image as PillowImage
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for key, text in (metadata or {}).items():
        texts.add_itxt(key.capitalize(), text)
    file = io.BytesIO()
    # Light compression: Pillow's default takes six times as long, for 15 % of the size.
    light = {"compress_level": 1, "compress_type": zlib.Z_RLE}
    PillowImage.fromarray(check_image(image)).save(file, "PNG", pnginfo=texts, **light)
    return file.getvalue()
