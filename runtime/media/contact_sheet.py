"""Frames side by side in one picture, each with a line of text and with what was found in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..support.atomic_files import atomic_write_bytes
from ..support.errors import ConfigError
from .frames import Crop, Image, png_bytes, resize, to_channels

T = TypeVar("T")
_STRIP, _GAP, _LETTER = 22, 4, 7  # pixels
_REGION, _TEXT, PLAIN, WRONG = (255, 200, 0), (255, 0, 255), (220, 220, 220), (255, 70, 70)


class Spread(Generic[T]):
    """Keeps some of what it is given, evenly spread: all while there are few, then from `least` to
    twice as many less one.

    Attributes:
        kept: what it kept.
        count: how many it was given.
    """

    def __init__(self, least: int) -> None:
        self.kept: list[T] = []
        self.count, self._least, self._every = 0, least, 1

    def add(self, item: T) -> None:
        """Take the next one."""
        if self.count % self._every == 0:
            self.kept.append(item)
            if len(self.kept) == 2 * self._least:
                self.kept, self._every = self.kept[::2], 2 * self._every
        self.count += 1


def check_sheet(path: Path | None) -> None:
    """Refuse a name of a contact sheet before there is any work.

    Raises:
        ConfigError: it is not a .png file.
    """
    if path is not None and path.suffix.lower() != ".png":
        raise ConfigError(f"a contact sheet is a .png file, not {path}", "-o sheet.png")


def corners(crop: Crop) -> NDArray[np.int64]:
    """The corner pixels of a rectangle, (4, 2)."""
    x, y, right, bottom = crop.x, crop.y, crop.x + crop.w - 1, crop.y + crop.h - 1
    return np.array([(x, y), (right, y), (right, bottom), (x, bottom)])


def cell(
    image: Image, said: str, side: int, outline: NDArray[Any] | None = None,
    text: Sequence[Crop] = (), colour: tuple[int, int, int] = PLAIN,
) -> Image:  # fmt: skip
    """One picture of a sheet, RGB: `side` pixels on its longer side, below a line of text.

    Args:
        outline: (N, 2) pixels of the image, of the region that is read, or would be.
        text: where there may be text.
        colour: of the line of text.
    """
    import cv2

    height, width = image.shape[:2]
    scale = side / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.array(resize(to_channels(image, 3), w, h))
    lines = [(corners(box), _TEXT) for box in text]
    if outline is not None:
        lines.append((outline, _REGION))
    for points, drawn in lines:
        cv2.polylines(small, [np.int32(points * scale).reshape(-1, 1, 2)], True, drawn)
    made = np.zeros((_STRIP + h, max(w, side), 3), np.uint8)
    made[_STRIP:, :w] = small
    most = side // _LETTER
    said = said if len(said) <= most else ".." + said[2 - most :]
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(made, said, (3, _STRIP - 7), font, 0.42, colour, 1, cv2.LINE_AA)
    return made


def write_sheet(path: Path, cells: Sequence[Image], columns: int) -> None:
    """Write a .png file of cells, which may be of unequal height.

    Raises:
        OutputError: it cannot be written.
    """
    height, width = (max(made.shape[axis] for made in cells) for axis in (0, 1))
    columns = min(columns, len(cells))
    sheet = np.zeros((-(-len(cells) // columns) * height, columns * (width + _GAP), 3), np.uint8)
    for place, made in enumerate(cells):
        top, left = place // columns * height, place % columns * (width + _GAP)
        sheet[top : top + made.shape[0], left : left + made.shape[1]] = made
    atomic_write_bytes(path, png_bytes(sheet))
