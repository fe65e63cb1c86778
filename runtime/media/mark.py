"""Mark pictures as synthetic: a word burned into a corner, and texts for the file's metadata."""

from __future__ import annotations

import numpy as np

from ... import __version__
from ..support.errors import InputError
from .frames import Image, check_image

# Drawn here, so that the mark is the same, pixel for pixel, wherever it is made, without a font.
_ROWS = (
    ".####.#...#.#...#.#####.#...#.#####.#####..###...####",
    "#.....#...#.##..#...#...#...#.#.......#.....#...#....",
    "#......#.#..#.#.#...#...#...#.#.......#.....#...#....",
    ".###....#...#.#.#...#...#####.####....#.....#...#....",
    "....#...#...#..##...#...#...#.#.......#.....#...#....",
    "....#...#...#...#...#...#...#.#.......#.....#...#....",
    "####....#...#...#...#...#...#.#####...#....###...####",
)
SYNTHETIC = "Synthetic ultrasound"
"""Title of the files that sonomime writes."""
_WORD = np.array([[255 * (dot == "#") for dot in row] for row in _ROWS], np.uint8)
# With a margin of one pixel. The last resort has none above and below: 7 x 7, which fits the
# smallest pictures.
_STAMPS = [np.pad(_WORD[:, : 6 * letters - 1], 1) for letters in (9, 3, 1)]
_STAMPS.append(_STAMPS[-1][1:-1])


def draw_mark(image: Image) -> Image:
    """A copy of a uint8 (H, W) or (H, W, 3) with "SYNTHETIC" in the bottom right corner, white on a
    black box.

    Pictures narrower than 55 pixels get a shorter word. The letters grow with the picture, one step
    for every 200 pixels of its shorter side.

    Raises:
        InputError: not an image, or below 7 x 7 pixels, smaller than any image that is read.
    """
    height, width = check_image(image).shape[:2]
    marked = image.copy()
    for stamp in _STAMPS:
        h, w = stamp.shape
        if scale := min(max(1, min(width, height) // 200), height // h, width // w):
            stamp = stamp.repeat(scale, axis=0).repeat(scale, axis=1)
            corner = marked[height - scale * h :, width - scale * w :]
            corner[...] = stamp if image.ndim == 2 else stamp[..., None]
            return marked
    raise InputError(
        f"a picture of {width} x {height} pixels is too small for the synthetic mark",
        "give one of at least 64 x 64 pixels",
    )


def metadata() -> dict[str, str]:
    """Texts for a file's metadata. All formats keep the title and the comment."""
    return {
        "synthetic": "YES",
        "title": SYNTHETIC,
        "comment": (
            f"Synthetic ultrasound made by sonomime {__version__} from a still image and the "
            "motion of another recording. For training and simulation only; not a medical device."
        ),
    }
