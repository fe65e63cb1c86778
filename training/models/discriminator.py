"""PatchGAN discriminator (METHOD, "Networks of the keypoint models", 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..config import DiscriminatorConfig


class Judgement(NamedTuple):
    """score: (B, 1, h, w), 26x26 at 256; features: the blocks' outputs after pooling."""

    score: Tensor
    features: tuple[Tensor, ...]


class Discriminator(nn.Module):
    """Blocks of conv4, then conv1, with spectral norm throughout.

    A block: conv4 without padding, affine InstanceNorm (not in the first), LeakyReLU 0.2, average
    pool (not in the last).
    """

    def __init__(self, config: DiscriminatorConfig, channels: int) -> None:
        super().__init__()
        own = (min(config.max_features, config.width * 2**i) for i in range(config.blocks))
        widths = [channels, *own]
        self.convs = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4)) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.InstanceNorm2d(width, affine=True) for width in widths[2:])
        self.final = spectral_norm(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, image: Tensor) -> Judgement:
        """Judge (B, C, S, S) images in [0, 1]."""
        x, features, last = image, [], len(self.convs) - 1
        for i, conv in enumerate(self.convs):
            x = self.norms[i - 1](conv(x)) if i > 0 else conv(x)
            x = F.leaky_relu(x, 0.2)
            x = F.avg_pool2d(x, 2) if i < last else x
            features.append(x)
        return Judgement(self.final(x), tuple(features))
