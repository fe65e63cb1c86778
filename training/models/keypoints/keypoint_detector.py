"""Keypoint detector: an image gives K points, each with a 2x2 jacobian.

Source: METHOD, "Networks of the keypoint models", 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...config import KeypointConfig
from ..blocks import Hourglass
from ..geometry import AntiAlias, in_float32, make_grid


class Keypoints(NamedTuple):
    """K local frames. value: (B, K, 2) points in [-1, 1], xy. jacobian: (B, K, 2, 2)."""

    value: Tensor
    jacobian: Tensor


class KeypointDetector(nn.Module):
    """Hourglass on the image x 0.25, spatial softmax, expected coordinates; supervised points come
    last."""

    def __init__(self, config: KeypointConfig, channels: int, geometry: str) -> None:
        super().__init__()
        self.geometry = geometry
        self.temperature = config.temperature
        self.down = AntiAlias(channels, 4, geometry)
        self.hourglass = Hourglass(channels, config.width, config.depth, config.max_features)
        # FOMM's head has no padding: its 58x58 heatmap is stretched over [-1, 1] by make_grid.
        padding = 0 if geometry == "fomm" else config.head_kernel // 2
        kernel = config.head_kernel
        self.count = config.count
        self.heatmap = nn.Conv2d(self.hourglass.outputs, self.count, kernel, padding=padding)
        self.jacobian = nn.Conv2d(self.hourglass.outputs, 4 * self.count, kernel, padding=padding)
        nn.init.zeros_(self.jacobian.weight)
        assert self.jacobian.bias is not None
        self.jacobian.bias.data.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(self.count))

    def forward(self, image: Tensor) -> Keypoints:
        """Detect the keypoints of (B, C, S, S) in [0, 1]. Source: FOMM section 3.1."""
        feature = self.hourglass(self.down(image))
        heatmap = self.normalise(self.heatmap(feature))
        return self.read(heatmap, self.jacobian(feature))

    def normalise(self, logits: Tensor) -> Tensor:
        """Softmax over space of (B, K, h, w) logits / temperature, in float32."""
        flat = logits.float().flatten(2) / self.temperature
        return flat.softmax(dim=-1).view(logits.shape)

    @in_float32
    def read(self, heatmap: Tensor, jacobian_maps: Tensor) -> Keypoints:
        """Expected coordinate and heatmap-weighted jacobian: (B, K, h, w) and (B, 4K, h, w)."""
        batch, count, height, width = heatmap.shape
        grid = make_grid(height, width, self.geometry, heatmap.device).view(1, 1, height * width, 2)
        weight = heatmap.view(batch, count, 1, height * width)
        value = torch.matmul(weight, grid).squeeze(2)
        maps = jacobian_maps.float().view(batch, count, 4, height * width)
        jacobian = (maps * weight).sum(-1).view(batch, count, 2, 2)
        return Keypoints(value, jacobian)
