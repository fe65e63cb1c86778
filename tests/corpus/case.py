"""Files that code writes, and what is right to read from them: six tiles of known grey levels.

No two tiles are alike, so flips and turns show. In frame `step` of a clip the first tile says which
frame it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GRID = np.array([[16, 64, 128], [235, 96, 200]])
SIZE = 96, 64
"""Width and height of most pictures, in pixels."""
COLOURS = np.repeat(GRID[..., None], 3, 2)
COLOURS[0, 2], COLOURS[1, 1] = (200, 40, 40), (40, 60, 220)  # flow to and fro, in a grey picture
LUMA = GRID.copy()
LUMA[0, 2], LUMA[1, 1] = 88, 72  # by the weights of BT.601


def grid(step: int = 0) -> np.ndarray:
    """The right levels of frame `step`."""
    levels = GRID.copy()
    levels[0, 0] += 20 * step
    return levels


def tiles(levels: np.ndarray = GRID, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    """(2, 3[, channels]) -> (height, width[, channels]), of the same type."""
    rows, columns = levels.shape[:2]
    return levels[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def picture(step: int = 0, width: int = SIZE[0], height: int = SIZE[1]) -> np.ndarray:
    return tiles(grid(step).astype(np.uint8), width, height)


def held(bits: int, step: int = 0) -> np.ndarray:
    """The same as values of so many bits, in 16."""
    return tiles(np.round(grid(step) / 255 * ((1 << bits) - 1)).astype(np.uint16))


def steps(count: int) -> list[np.ndarray]:
    """The right levels of a clip of so many frames."""
    return [grid(step) for step in range(count)]


@dataclass(frozen=True)
class Case:
    """What is right.

    Attributes:
        write: writes the file, or fills the folder, of that path.
        levels: of the tiles, for each frame that is compared.
        count: how many frames there are, if more are there than are compared.
        size: width and height.
        off: by how many grey levels a tile may be off.
        times: in seconds, if they are known; `close`: by how much they may be off.
        how: options of `Reading`.
        refused: it is an InputError.
        damaged: whether the source reports damage; None: not compared.
    """

    write: Callable[[Path], Any]
    levels: Sequence[np.ndarray] = (GRID,)
    count: int | None = None
    size: tuple[int, int] = SIZE
    off: float = 0
    times: Sequence[float] | None = None
    close: float = 1e-6
    channels: int = 1
    how: Mapping[str, Any] = field(default_factory=dict)
    refused: bool = False
    damaged: bool | None = False


CASES: dict[str, Case] = {}
"""By the name of the file or folder."""


def add(name: str, write: Callable[[Path], Any], **right: Any) -> None:
    if name in CASES:
        raise ValueError(f"there are two cases {name}")
    CASES[name] = Case(write, **right)
