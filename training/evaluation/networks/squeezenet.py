"""SqueezeNet 1.1 (Iandola et al. 2016, arXiv 1602.07360): features that are cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...models.perceptual import MEAN, STD, Fire, squeezenet_layers
from .weights import Weights, fill


class SqueezeNet(nn.Module):
    """The last fire module's output, averaged over the picture: 512 features."""

    mean: Tensor
    std: Tensor
    side = None  # pictures are seen at their own size

    def __init__(self) -> None:
        super().__init__()
        deep = [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)]
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(*squeezenet_layers(), pool, *deep)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] -> (B, 512)."""
        x = (image.expand(-1, 3, -1, -1) - self.mean) / self.std
        return self.features(x).mean((2, 3))


def squeezenet(weights: Weights) -> SqueezeNet:
    """With the weights of a file that has torchvision's key names."""
    made = SqueezeNet()
    fill(made, weights)
    return made


def motion_features(frames: Tensor) -> Tensor:
    """Of the features (T, D) of a window, (2 D,): their means over its frames, and the root mean
    square of the steps from frame to frame."""
    return torch.cat([frames.mean(0), frames.diff(dim=0).square().mean(0).sqrt()])
