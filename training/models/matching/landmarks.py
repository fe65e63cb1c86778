"""The landmark detector: which named places of an anatomy an image shows, and where.

It runs once on a source and once on a reference, to align two subjects. It is the only part that
knows an anatomy, shares nothing with the matcher, and can be left out.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import LandmarkConfig
from ..geometry import in_float32, make_grid
from .matcher import Residual, enlarge, locally_normalised, start_at_zero, start_loud

SHARPNESS = 4.0  # factor of all logits: with 1, presence takes more steps to learn


class Landmarks(NamedTuple):
    """Of K landmarks: points (B, K, 2), half_pixel; present (B, K), logits of their presence;
    heatmap (B, K, S/4, S/4), logits of their places."""

    points: Tensor
    present: Tensor
    heatmap: Tensor


class LandmarkDetector(nn.Module):
    """A U-Net on the image folded to a quarter of its size; softmax over space, expected place.
    Presence is read where the landmark was found, and in the image as a whole: an image of another
    anatomy has a most likely place too."""

    grid: Tensor

    def __init__(self, config: LandmarkConfig, channels: int, size: int) -> None:
        super().__init__()
        width = config.width
        widths = (width, 3 * width // 2, 2 * width, 2 * width)  # at S/4, S/8, S/16, S/32
        self.first = nn.Conv2d(17 * channels, width, 3, padding=1)
        self.near = nn.ModuleList(Residual(w) for w in widths[:-1])
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.deep = nn.Sequential(*(Residual(widths[-1], dilation) for dilation in (1, 2, 1)))
        self.merge = nn.ModuleList(nn.Conv2d(a + b, a, 1) for a, b in pairwise(widths))
        self.back = nn.ModuleList(Residual(w) for w in widths[:-1])
        self.whole = nn.Conv2d(widths[-1], widths[-1], 1)
        self.heatmap = start_at_zero(nn.Conv2d(width, config.count, 3, padding=1))
        self.here = start_at_zero(nn.Conv2d(width, config.count, 1))
        self.overall = start_at_zero(nn.Conv2d(widths[-1], config.count, 1))
        start_loud(self)
        side = size // 4
        grid = make_grid(side, side, "half_pixel").view(-1, 2)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, image: Tensor) -> Landmarks:
        """Find the landmarks of (B, C, S, S) in [0, 1]."""
        # Fine structure whatever the gain, and the mean level: landmarks often lie beside a void.
        around = 4 * (F.avg_pool2d(image.float(), 4) - 0.25)
        x = torch.cat([F.pixel_unshuffle(locally_normalised(image), 4), around], dim=1)
        x = self.first(x.to(self.heatmap.weight.dtype))
        kept = []
        for near, down in zip(self.near, self.down, strict=True):
            kept.append(near(x))
            x = down(F.relu(kept[-1]))
        deep = F.relu(self.deep(x))
        x = deep
        for i in reversed(range(len(kept))):
            x = self.merge[i](torch.cat([kept[i], enlarge(x)], dim=1))
            x = F.relu(self.back[i](x))
        overall = self.overall(F.relu(self.whole(deep.mean((2, 3), keepdim=True))))
        return self.read(self.heatmap(x), self.here(x), overall)

    def located(self, image: Tensor) -> Tensor:
        """float32 (B, K, 3) as on the wire: places in points, and probabilities."""
        found: Landmarks = self(image)
        return torch.cat([found.points, found.present.sigmoid()[..., None]], dim=-1)

    @in_float32
    def read(self, heatmap: Tensor, here: Tensor, overall: Tensor) -> Landmarks:
        """From maps (B, K, n, n), and (B, K, 1, 1) of the whole image."""
        heatmap, here, overall = (SHARPNESS * x.float() for x in (heatmap, here, overall))
        share = heatmap.flatten(2).softmax(dim=-1)
        # The loss of presence must not move the places.
        present = (here.flatten(2) * share.detach()).sum(-1) + overall.flatten(1)
        return Landmarks(share @ self.grid, present, heatmap)
