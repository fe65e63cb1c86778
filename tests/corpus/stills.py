"""Single pictures, and files of several pictures that are no video."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .case import COLOURS, GRID, LUMA, add, grid, held, picture, steps, tiles

WINDOWED = np.round((GRID - 16) * 255 / 219)
"""What is right when the darkest tile is black and the brightest is white."""
# Tags of TIFF: their numbers.
BITS, PHOTOMETRIC, SUBFILE, FORMAT = 258, 262, 254, 339
UNSIGNED, SIGNED, FLOAT = 1, 2, 3


def saved(image: np.ndarray | Image.Image, path: Path, **options: Any) -> None:
    still = image if isinstance(image, Image.Image) else Image.fromarray(image)
    still.save(path, **options)


def tiff(path: Path, *pages: tuple[np.ndarray, dict[int, int]]) -> None:
    """An uncompressed TIFF, written by hand. 1 and 12 bits are packed."""
    content = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for image, tags in pages:
        depth = tags.get(BITS, image.itemsize * 8)
        data = image.astype(image.dtype.newbyteorder("<")).tobytes()
        if depth in (1, 12):
            ones = image[..., None] >> np.arange(depth)[::-1] & 1
            data = np.packbits(ones.astype(np.uint8).reshape(len(image), -1), axis=1).tobytes()
        height, width = image.shape
        entries = {SUBFILE: 0, 256: width, 257: height, BITS: depth, 259: 1, PHOTOMETRIC: 1}
        entries |= {273: len(content), 277: 1, 278: height, 279: len(data), FORMAT: UNSIGNED} | tags
        content += data + bytes(len(data) % 2)
        content[link : link + 4] = struct.pack("<I", len(content))
        content += struct.pack("<H", len(entries))
        for tag in sorted(entries):
            content += struct.pack("<HHII", tag, 4, 1, entries[tag])
        link = len(content)
        content += bytes(4)
    path.write_bytes(content)


def with_sbit(path: Path, bits: int, shift: int) -> None:
    """A PNG of 16 bits that says that fewer matter: by the standard the upper ones; some programs
    write them without a shift."""
    file = io.BytesIO()
    Image.fromarray(held(bits) << shift).save(file, "PNG")
    content = file.getvalue()
    chunk = b"sBIT" + bytes([bits])
    chunk = struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + chunk + content[33:])  # after the header


def several(path: Path, **options: Any) -> None:
    first, *rest = (Image.fromarray(picture(step)) for step in range(4))
    first.save(path, save_all=True, append_images=rest, **options)


def transparent(mode: str) -> Image.Image:
    """The third tile is transparent, with white below."""
    grey = GRID.astype(np.uint8)
    grey[0, 2] = 255
    alpha = np.where(grey == 255, 0, 255).astype(np.uint8)
    if mode == "P":
        still = Image.fromarray(tiles(grey)).convert("P")
        still.info["transparency"] = 255
        return still
    return Image.fromarray(tiles(np.dstack([grey] * (len(mode) - 1) + [alpha])), mode)


HOLE = GRID.copy()
HOLE[0, 2] = 0

for bits in (8, 10, 12, 14, 16):
    add(f"{bits} in 16.png", partial(saved, held(bits)), off=1)
    add(f"{bits} in 16.tif", lambda path, b=bits: tiff(path, (held(b), {})), off=1)
    add(
        f"inverted, {bits} in 16.tif",
        lambda path, b=bits: tiff(path, ((1 << b) - 1 - held(b), {PHOTOMETRIC: 0})),
        off=1,
    )
for bits in (8, 10, 12):
    add(f"sBIT {bits}.png", partial(with_sbit, bits=bits, shift=16 - bits), off=1)
    add(f"sBIT {bits}, no shift.png", partial(with_sbit, bits=bits, shift=0), off=1)
add("12 bits.tif", lambda path: tiff(path, (held(12), {BITS: 12})), off=1)
# Declared bits count, even if the picture is dark.
add(
    "12 bits, dark.tif",
    lambda path: tiff(path, (held(12) // 8, {BITS: 12})),
    levels=[GRID / 8],
    off=1,
)
deep = np.repeat(held(12)[..., None], 3, 2)
add("12 in 16, colour.png", lambda path: cv2.imwrite(str(path), deep), off=1)
add("12 in 16, colour.tif", lambda path: cv2.imwrite(str(path), deep), off=1)

window = {"levels": [WINDOWED], "off": 1}
for name, values, kind in (
    ("float", tiles(GRID / np.float32(1000) - 0.1), FLOAT),
    ("double", tiles(GRID * 1e6), FLOAT),
    ("int32", tiles((GRID * 1000 - 90_000).astype(np.int32)), SIGNED),
    ("uint32", tiles((GRID * 10_000_000).astype(np.uint32)), UNSIGNED),
    ("int16", tiles((GRID * 10 - 1000).astype(np.int16)), SIGNED),
):
    page = values.astype(np.float32) if name == "float" else values
    add(f"{name}.tif", lambda path, p=page, k=kind: tiff(path, (p, {FORMAT: k})), **window)

add("inverted.tif", lambda path: tiff(path, (255 - picture(), {PHOTOMETRIC: 0})))
black_and_white = np.where(GRID > 100, 255, 0)
one_bit = tiles((GRID > 100).astype(np.uint8))
add("1 bit.tif", lambda path: tiff(path, (one_bit, {BITS: 1})), levels=[black_and_white])
add(
    "inverted, 1 bit.tif",
    lambda path: tiff(path, (1 - one_bit, {BITS: 1, PHOTOMETRIC: 0})),
    levels=[black_and_white],
)
add("1 bit.png", lambda path: saved(one_bit.astype(bool), path), levels=[black_and_white])

pages = [(picture(step), {}) for step in range(4)]
add("pages.tif", lambda path: tiff(path, *pages), levels=steps(4), times=np.arange(4) / 30)
small = (picture(9, 24, 16), {SUBFILE: 1})
add("thumbnail.tif", lambda path: tiff(path, pages[0], small))
add("pages, fps given.tif", lambda path: tiff(path, *pages), levels=steps(4),
    times=np.arange(4) / 10, how={"fps": 10})  # fmt: skip
fading = [(held(12), {}), (held(12) // 8, {})]  # one range for all
add("12 in 16, pages.tif", lambda path: tiff(path, *fading), levels=[GRID, GRID / 8], off=1)
add("pages, thumbnails.tif", lambda path: tiff(path, *[p for page in pages for p in (page, small)]),
    levels=steps(4))  # fmt: skip
delays = {"levels": steps(4), "times": [0, 0.04, 0.12, 0.24], "close": 0.0006}
duration = [40, 80, 120, 40]
add("animated.png", partial(several, duration=duration), **delays)
add("animated.webp", partial(several, duration=duration, lossless=True), **delays)
add("animated, lossy.webp", partial(several, duration=duration, quality=95), **delays, off=3)
add("animated.gif", partial(several, duration=duration), **delays)
add("one frame.gif", partial(saved, picture()))

for mode in ("RGBA", "LA", "P"):
    add(f"transparent, {mode}.png", partial(saved, transparent(mode)), levels=[HOLE])
only_alpha = np.dstack([np.full_like(picture(), 255)] * 3 + [picture()])
add("alpha alone, white.png", partial(saved, only_alpha))
add("alpha alone, black.png", partial(saved, only_alpha * np.array([0, 0, 0, 1], np.uint8)))
opaque = np.dstack([picture()] * 3 + [np.full_like(picture(), 255)])
add("opaque.png", partial(saved, opaque))

colours = tiles(COLOURS.astype(np.uint8))
add("colour.png", partial(saved, colours), levels=[COLOURS], channels=3)
add("colour as grey.png", partial(saved, colours), levels=[LUMA], off=1)
palette = Image.fromarray(colours).quantize(16)
add("palette.png", partial(saved, palette), levels=[COLOURS], channels=3, off=2)
add("grey palette.png", lambda path: saved(Image.fromarray(picture()).convert("P"), path))

add("lossy.webp", partial(saved, picture(), quality=95), off=3)
add("lossless.webp", partial(saved, picture(), lossless=True))
add("a.jp2", partial(saved, picture()))
add("lossy.j2k", partial(saved, picture(), irreversible=True), off=2)
add("a.pgm", partial(saved, picture()))
add("a.ppm", partial(saved, colours), levels=[COLOURS], channels=3)


def text(path: Path) -> None:
    lines = [" ".join(map(str, row)) for row in picture()]
    path.write_text("\n".join(["P2", "# a comment", "96 64", "255", *lines]))


def big_endian(path: Path, maximum: int = 65535) -> None:
    values = tiles(np.round(GRID * maximum / 255).astype(">u2"))
    path.write_bytes(b"P5\n96 64\n%d\n" % maximum + values.tobytes())


add("ascii.pgm", text)
add("16 bits.pgm", big_endian, off=1)
add("maximum 1023.pgm", partial(big_endian, maximum=1023), off=1)


def turned(path: Path) -> None:
    """Stored on its side; the tag says to turn it clockwise."""
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture()).save(path, exif=exif, quality=95)


def app14(path: Path) -> None:
    """A grey JPEG with the marker that Adobe's programs add to colour ones."""
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG", quality=95)
    content = file.getvalue()
    marker = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    path.write_bytes(content[:2] + marker + content[2:])


add("turned.jpg", turned, levels=[np.rot90(GRID, -1)], size=(64, 96), off=2)
add("grey, APP14.jpg", app14, off=2)
add("cmyk.jpg", lambda path: saved(Image.fromarray(colours).convert("CMYK"), path, quality=98),
    levels=[COLOURS], channels=3, off=5)  # fmt: skip
add("a.bmp", partial(saved, picture()))
add("odd size.png", partial(saved, picture(0, 33, 35)), size=(33, 35))
add("step.jpg", partial(saved, picture(3), quality=95), levels=[grid(3)], off=2)
