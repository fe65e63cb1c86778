"""Losses of a predicted image, (B, C, S, S) in [0, 1], and the discriminator; results are scalars,
unweighted.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from ..config import DiscriminatorConfig
from .geometry import AntiAlias
from .perceptual import FeatureNetwork


def l1(predicted: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference, in float32. (A sum, divided: the gradient of F.l1_loss has another
    memory layout than channels_last, and takes four times as long.)"""
    return (predicted.float() - real.float()).abs().sum() / predicted.numel()


def box(image: Tensor) -> Tensor:
    """Mean of 3x3 pixels, zero outside. (Several times as quick as average pooling on a CPU.)"""
    x = F.pad(image, (1, 1, 1, 1))
    rows = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    return (rows[..., :-2, :] + rows[..., 1:-1, :] + rows[..., 2:, :]) / 9


class Pyramid(nn.Module):
    """An image at 1, 1/2, 1/4 ... of its size, each anti-aliased from the full image."""

    def __init__(self, channels: int, scales: int, geometry: str) -> None:
        super().__init__()
        self.levels = nn.ModuleList(AntiAlias(channels, 2**i, geometry) for i in range(1, scales))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [image] + [level(image) for level in self.levels]


def pyramid_l1(predicted: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 summed over the scales. Eq. 5."""
    return torch.stack([l1(p, r) for p, r in zip(predicted, real, strict=True)]).sum()


def perceptual(network: FeatureNetwork, predicted: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 of features, mean over elements, summed over layers and scales. Eq. 6."""
    total = predicted[0].new_zeros(())
    for p, r in zip(predicted, real, strict=True):
        with torch.no_grad():
            targets = network(r)
        for feature, target in zip(network(p), targets, strict=True):
            distance = l1(feature, target)
            size = target.float().abs().mean() if network.normalise else 1
            total = total + distance / size
    return total


class Judgement(NamedTuple):
    """score: (B, 1, h, w), 26x26 at 256; features: the blocks' outputs after pooling."""

    score: Tensor
    features: tuple[Tensor, ...]


class Discriminator(nn.Module):
    """PatchGAN (METHOD, "Networks of the keypoint models", 4): blocks of conv4, then conv1.

    A block: conv4 without padding, affine InstanceNorm (not in the first), LeakyReLU 0.2, average
    pool (in the last only if ``pool_last``).
    """

    def __init__(self, config: DiscriminatorConfig, channels: int) -> None:
        super().__init__()
        own = (min(config.max_features, config.width * 2**i) for i in range(config.blocks))
        widths = [channels, *own]
        bounded = spectral_norm if config.spectral_norm else nn.Identity()
        self.convs = nn.ModuleList(bounded(nn.Conv2d(a, b, 4)) for a, b in pairwise(widths))
        # A group for each channel: affine InstanceNorm, quicker than torch's own on a CPU.
        self.norms = nn.ModuleList(nn.GroupNorm(width, width) for width in widths[2:])
        self.final = bounded(nn.Conv2d(widths[-1], 1, 1))
        self.pooled = config.blocks - (not config.pool_last)

    def forward(self, image: Tensor) -> Judgement:
        """Judge (B, C, S, S) images in [0, 1]."""
        x, features = image, []
        for i, conv in enumerate(self.convs):
            # Several times as quick on a CPU: norms of contiguous planes, pooling of channels_last.
            x = conv(x)
            x = self.norms[i - 1](x.contiguous()) if i > 0 else x
            x = F.leaky_relu(x, 0.2).contiguous(memory_format=torch.channels_last)
            x = F.avg_pool2d(x, 2) if i < self.pooled else x
            features.append(x)
        return Judgement(self.final(x), tuple(features))


def lsgan_generator(fake: Judgement) -> Tensor:
    """Mean of (D(y) - 1)^2. Eq. 7."""
    return (fake.score.float() - 1).square().mean()


def lsgan_discriminator(real: Judgement, fake: Judgement) -> Tensor:
    """Mean of (D(x) - 1)^2 + D(y)^2. Eq. 8."""
    return (real.score.float() - 1).square().mean() + fake.score.float().square().mean()


def feature_matching(fake: Judgement, real: Judgement) -> Tensor:
    """L1 on each of the discriminator's features, the real side detached. Eq. 9."""
    pairs = zip(fake.features, real.features, strict=True)
    return torch.stack([l1(f, r.detach()) for f, r in pairs]).sum()


def sharpness(predicted: Tensor, real: Tensor, reach: int = 16) -> Tensor:
    """Squared error of the local deviation of fine details, as a share of that deviation, summed
    over six Haar bands (rows, columns, diagonals; two scales); plus the same of the whole image's
    deviation, without which pictures are too soft by a tenth. L1 alone would reward blur.

    Each band has its own target: else a grid at the finest scale would make up for missing speckle.

    Args:
        reach: side of a local area, in pixels.
    """
    total = predicted.new_zeros(())
    for scale in range(2):
        size = reach >> (scale + 1)
        bands, wanted = _haar(predicted), _haar(real)
        for a, b in zip(bands[1:], wanted[1:], strict=True):
            found, real_ones = _deviation(a, size), _deviation(b, size)
            total = total + F.mse_loss(found, real_ones) / real_ones.mean()
            whole = [(x.square().mean(dim=(1, 2, 3)) + 1e-5).sqrt() for x in (a, b)]
            total = total + (whole[0] / whole[1] - 1).square().mean()
        predicted, real = bands[0] / 2, wanted[0] / 2
    return total


def _haar(image: Tensor) -> tuple[Tensor, ...]:
    """Orthonormal Haar bands (B, C, H/2, W/2): low-pass, along columns, along rows, diagonal."""
    a, b = image[..., 0::2, 0::2], image[..., 0::2, 1::2]
    c, d = image[..., 1::2, 0::2], image[..., 1::2, 1::2]
    return (a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2


def _deviation(band: Tensor, size: int) -> Tensor:
    return (F.avg_pool2d(band.square(), size, size // 2) + 1e-5).sqrt()
