"""Synthetic pictures say so: a mark burned into a corner, and texts for the file's metadata."""

from __future__ import annotations

import numpy as np

from ... import __version__
from ..support.errors import InputError
from .frames import Image, check_image

# Rows of a 5 x 7 letter as bits, drawn here so that the mark is the same, pixel for pixel, wherever
# it is made and needs no font.
_LETTERS = {
    "S": (0b01111, 0b10000, 0b10000, 0b01110, 0b00001, 0b00001, 0b11110),
    "Y": (0b10001, 0b10001, 0b01010, 0b00100, 0b00100, 0b00100, 0b00100),
    "N": (0b10001, 0b11001, 0b10101, 0b10101, 0b10011, 0b10001, 0b10001),
    "T": (0b11111, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100),
    "H": (0b10001, 0b10001, 0b10001, 0b11111, 0b10001, 0b10001, 0b10001),
    "E": (0b11111, 0b10000, 0b10000, 0b11110, 0b10000, 0b10000, 0b11111),
    "I": (0b01110, 0b00100, 0b00100, 0b00100, 0b00100, 0b00100, 0b01110),
    "C": (0b01111, 0b10000, 0b10000, 0b10000, 0b10000, 0b10000, 0b01111),
}
_LETTER_WIDTH, _LETTER_HEIGHT = 5, 7
_WORDS = ("SYNTHETIC", "SYN", "S")
_TEXT_LEVEL = 255
_BOX_LEVEL = 0


def _stamp(word: str) -> Image:
    """White letters on a black box, one pixel of margin around every letter."""
    height, step = _LETTER_HEIGHT + 2, _LETTER_WIDTH + 1
    stamp = np.full((height, step * len(word) + 1), _BOX_LEVEL, np.uint8)
    for place, letter in enumerate(word):
        for row, bits in enumerate(_LETTERS[letter]):
            for column in range(_LETTER_WIDTH):
                if bits >> (_LETTER_WIDTH - 1 - column) & 1:
                    stamp[1 + row, 1 + step * place + column] = _TEXT_LEVEL
    return stamp


def mark_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Where `draw_mark` writes in a picture of this size: x, y, w, h in pixels."""
    stamp = _fitting_stamp(width, height)
    h, w = stamp.shape
    return width - w, height - h, w, h


def _fitting_stamp(width: int, height: int) -> Image:
    # The last resort has no box above and below: 7 x 7, so that the smallest pictures can bear it.
    for stamp in (*map(_stamp, _WORDS), _stamp("S")[1:-1]):
        if stamp.shape[0] <= height and stamp.shape[1] <= width:
            scale = max(1, min(width, height) // 200)
            scale = min(scale, height // stamp.shape[0], width // stamp.shape[1])
            return np.kron(stamp, np.ones((scale, scale), np.uint8))
    raise InputError(
        f"a picture of {width} x {height} pixels is too small for the synthetic mark",
        "give one of at least 64 x 64 pixels",
    )


def draw_mark(image: Image) -> Image:
    """A copy with "SYNTHETIC" burned into the bottom right corner, white on a black box.

    Pictures narrower than 55 pixels get a shorter word. The letters grow with the picture, one step
    for every 200 pixels of its shorter side.

    Args:
        image: uint8 (H, W) or (H, W, 3).

    Raises:
        InputError: not an image, or below 7 x 7 pixels, smaller than any image that is read.
    """
    height, width = check_image(image).shape[:2]
    stamp = _fitting_stamp(width, height)
    marked = image.copy()
    corner = marked[height - stamp.shape[0] :, width - stamp.shape[1] :]
    corner[...] = stamp if image.ndim == 2 else stamp[..., None]
    return marked


def metadata() -> dict[str, str]:
    """Texts for a file's metadata, by keys that MP4, Matroska and PNG all keep."""
    return {
        "title": "Synthetic ultrasound",
        "comment": (
            f"Synthetic ultrasound made by sonomime {__version__} from a still image and the "
            "motion of another recording. For training and simulation only; not a medical device."
        ),
    }
