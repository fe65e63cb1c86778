"""Draw an alignment: which place of the source is read where in the reference frame.

On the left is the source with the cells of its grid, on the right the reference with the same cells
where they are read. Landmarks have the same number and colour in both.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .alignment import Places, points_to_pixels
from .media.frames import Image, Letterbox, png_bytes, to_channels
from .media.panels import Panels
from .session import own_places
from .support.atomic_files import atomic_write_bytes

HEIGHT = 640
LINES = 16  # of the grid, at most, each way
_GRID = (0, 150, 190)
_BLACK = (0, 0, 0)


def write_debug_picture(
    path: Path, pictures: tuple[Image, Image], grid: NDArray[np.float32], landmarks: Places,
    names: Sequence[str], size: int,
) -> None:  # fmt: skip
    """The picture of `draw_alignment` as a PNG file; OutputError if it cannot be written."""
    drawn = draw_alignment(pictures, grid, landmarks, names, size)
    atomic_write_bytes(path, png_bytes(drawn))


def draw_alignment(
    pictures: tuple[Image, Image], grid: NDArray[np.float32], landmarks: Places,
    names: Sequence[str], size: int,
) -> Image:  # fmt: skip
    """Draw source and reference, (H, W) or (H, W, 3), beside each other.

    Args:
        grid: (1, rows, columns, 2), the session's `alignment`.
        landmarks: (2, K, 2) pixels in the two pictures. names: of the K landmarks.
        size: of the model's square.
    """
    grids = own_places(*grid.shape[1:3]), grid
    drawn = [_draw(*each, names, size) for each in zip(pictures, grids, landmarks, strict=True)]
    widths = [max(1, round(image.shape[1] * HEIGHT / image.shape[0])) for image in drawn]
    panels = Panels(("source", "reference"), [(width, HEIGHT) for width in widths], 3)
    return panels.compose(drawn)


def _draw(
    picture: Image, grid: NDArray[np.float32], landmarks: Places, names: Sequence[str], size: int
) -> Image:
    import cv2

    height, width = picture.shape[:2]
    factor = min(HEIGHT / height, 2 * HEIGHT / width)
    shown = max(1, round(width * factor)), max(1, round(height * factor))
    image: Any = cv2.resize(to_channels(picture, 3), shown, interpolation=cv2.INTER_LINEAR)

    def place(pixels: Places) -> NDArray[np.int32]:
        return np.asarray(np.rint((pixels + 0.5) * factor - 0.5), np.int32)

    cells = place(points_to_pixels(grid[0], Letterbox.fit(width, height, size)))
    rows, columns = (
        np.linspace(0, n - 1, min(n, LINES)).round().astype(int) for n in cells.shape[:2]
    )
    lines = [line[:, None] for line in (*cells[rows], *cells[:, columns].transpose(1, 0, 2))]
    over = cv2.polylines(image.copy(), lines, False, _GRID, 1, cv2.LINE_AA)
    image = cv2.addWeighted(image, 0.5, over, 0.5, 0)
    for i, (name, (x, y)) in enumerate(zip(names, place(landmarks).tolist(), strict=True)):
        hue = i * 0.381966 % 1  # colours of neighbours differ, however many there are
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 1))
        number = str(i + 1)
        text = number if name == number else f"{number} {name}"
        text = text.encode("ascii", "replace").decode()
        (w, h), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)
        corner = (min(x + 9, shown[0] - w - 2), min(max(y - 5, h + 2), shown[1] - 4))
        for level, radius, thick in ((_BLACK, 6, 3), (colour, 4, 1)):
            cv2.circle(image, (x, y), radius, level, -1, cv2.LINE_AA)
            cv2.putText(
                image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, level, thick, cv2.LINE_AA
            )
    return np.asarray(image, np.uint8)
