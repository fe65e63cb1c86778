"""Blocks of the keypoint networks and the hourglass, (B, C, H, W) in and out.

Source: METHOD, "Networks of the keypoint models".
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Same(nn.Module):
    """conv -> BatchNorm -> ReLU at the same size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Down(Same):
    """conv3 -> BatchNorm -> ReLU -> average pool: half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


class Up(Same):
    """Upsample x2, nearest or bilinear -> conv3 -> BatchNorm -> ReLU: twice the size."""

    def __init__(self, inputs: int, outputs: int, mode: str = "nearest") -> None:
        super().__init__(inputs, outputs)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        corners = None if self.mode == "nearest" else False
        x = F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=corners)
        return super().forward(x)


class Residual(nn.Module):
    """x + conv3(ReLU(BN(conv3(ReLU(BN(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class Hourglass(nn.Module):
    """``depth`` downs, as many ups, every skip concatenated, the raw input included and last.

    Widths are min(max_features, width * 2^(i+1)) going down and min(max_features, width * 2^i)
    coming up. The result has ``outputs`` channels at the input's size, which 2^depth must divide.
    """

    def __init__(self, inputs: int, width: int, depth: int = 5, max_features: int = 1024) -> None:
        super().__init__()

        def capped(i: int) -> int:
            return min(max_features, width * 2**i)

        downs = [inputs, *(capped(i + 1) for i in range(depth))]
        self.downs = nn.ModuleList(Down(a, b) for a, b in pairwise(downs))
        # Above the bottom, an up block reads the one below it and the skip of the same size.
        self.ups = nn.ModuleList(
            Up((1 if i == depth - 1 else 2) * capped(i + 1), capped(i))
            for i in reversed(range(depth))
        )
        self.outputs = capped(0) + inputs

    def forward(self, x: Tensor) -> Tensor:
        skips = [x.to(self.downs[0].conv.weight.dtype)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        y = skips.pop()
        for up in self.ups:
            y = torch.cat([up(y), skips.pop()], dim=1)
        return y
