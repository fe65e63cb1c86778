"""Likeness of descriptors between near places, as matrix products.

Windows of shifted products would be a hundred small operators that wait for memory. So the frame is
cut into tiles: one product compares a tile's cells with all cells around the tile, and one gather
with constant indices picks each cell's own window: ten times quicker on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TILE = 8


class LocalCorrelation(nn.Module):
    """(B, C, n, n) twice -> (B, (2 r + 1)^2, n, n): the scalar products of a cell of the first with
    the cells of the second around the same place, row by row; zero outside."""

    own: Tensor
    keys: Tensor
    window: Tensor

    def __init__(self, size: int, radius: int) -> None:
        super().__init__()
        self.size, self.radius = size, radius
        self.tiles, self.reach = size // TILE, TILE + 2 * radius
        corner = torch.arange(self.tiles) * TILE
        cell = corner[:, None] + torch.arange(TILE)  # a tile's rows, and its columns
        around = corner[:, None] + torch.arange(self.reach)  # of the padded map
        self.register_buffer("own", _places(cell, size), persistent=False)
        self.register_buffer("keys", _places(around, size + 2 * radius), persistent=False)
        # Of the product, which is (tile, cell, cell around), what belongs to shift and cell.
        line, shift = torch.arange(size), torch.arange(2 * radius + 1)
        tile = line // TILE
        tile = tile[:, None] * self.tiles + tile
        inside = line % TILE
        row = inside[:, None] * TILE + inside
        near = shift[:, None] + inside  # (window, size): rows around, and columns
        column = near[:, None, :, None] * self.reach + near[None, :, None, :]
        window = (tile * TILE**2 + row) * self.reach**2 + column
        self.register_buffer("window", window.flatten().int(), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        batch, channels = first.shape[:2]
        padded = F.pad(second, (self.radius,) * 4)
        # Channels last: what is gathered are rows, and not single numbers.
        queries, keys = (
            x.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, places)
            for x, places in ((first, self.own), (padded, self.keys))
        )
        queries = queries.view(batch, -1, TILE**2, channels)
        keys = keys.view(batch, -1, self.reach**2, channels)
        likeness = (queries @ keys.transpose(2, 3)).flatten(1)
        return likeness.index_select(1, self.window).view(batch, -1, self.size, self.size)


def _places(line: Tensor, side: int) -> Tensor:
    """Cells of a square map of that side, tile by tile: `line` (tiles, n) has a tile's rows."""
    return (line[:, None, :, None] * side + line[None, :, None, :]).flatten().int()
