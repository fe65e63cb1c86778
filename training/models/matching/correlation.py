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

    keys: Tensor
    window: Tensor

    def __init__(self, size: int, radius: int) -> None:
        super().__init__()
        self.size, self.radius = size, radius
        self.tiles, self.reach = size // TILE, TILE + 2 * radius
        side = size + 2 * radius
        corner = torch.arange(self.tiles) * TILE
        line = corner[:, None] + torch.arange(self.reach)  # (tiles, reach), cells of the padded map
        keys = line[:, None, :, None] * side + line[None, :, None, :]
        self.register_buffer("keys", keys.flatten(), persistent=False)
        cell, shift = torch.arange(TILE), torch.arange(2 * radius + 1)
        near = cell[:, None] + shift  # (TILE, window)
        window = near[:, None, :, None] * self.reach + near[None, :, None, :]
        own = torch.arange(TILE * TILE).view(TILE, TILE, 1, 1) * self.reach**2
        self.register_buffer("window", (own + window).flatten(), persistent=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        batch, channels = first.shape[:2]
        tiles, cells, around = self.tiles, TILE * TILE, self.reach**2
        padded = F.pad(second, (self.radius,) * 4).flatten(2)
        keys = padded.index_select(2, self.keys).view(batch, channels, tiles * tiles, around)
        queries = first.view(batch, channels, tiles, TILE, tiles, TILE)
        queries = queries.permute(0, 2, 4, 3, 5, 1).reshape(batch, tiles * tiles, cells, channels)
        likeness = queries @ keys.permute(0, 2, 1, 3)
        picked = likeness.view(batch, tiles * tiles, cells * around).index_select(2, self.window)
        picked = picked.view(batch, tiles, tiles, TILE, TILE, -1)
        return picked.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, self.size, self.size)
