"""The generator, with one decoder (FOMM) or content and texture, and the whole model.

Source: METHOD, "Networks of the keypoint models", 3.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...config import GeneratorConfig, ModelConfig
from .. import operators
from ..base import Model
from ..geometry import AntiAlias
from .background import Background
from .motion import (
    DenseMotion,
    Down,
    KeypointDetector,
    Keypoints,
    Motion,
    Residual,
    Same,
    Up,
    resize,
)


class Prediction(NamedTuple):
    """Images (B, C, S, S): the frame, not clamped, and its parts; texture was added to content."""

    image: Tensor
    content: Tensor
    texture: Tensor


def widths(config: GeneratorConfig) -> list[int]:
    """Channels at the full size, at a half ..."""
    return [min(config.max_features, config.width * 2**i) for i in range(config.downs + 1)]


class Decoder(nn.Module):
    """Up blocks and a conv7; ``skip`` channels of the warped feature feed every block (0: none)."""

    def __init__(self, config: GeneratorConfig, channels: int, skip: int, upsample: str) -> None:
        super().__init__()
        steps = pairwise(reversed(widths(config)))
        self.ups = nn.ModuleList(Up(a + skip, b, upsample) for a, b in steps)
        self.final = nn.Conv2d(widths(config)[0], channels, 7, padding=3)
        self.skip, self.upsample = skip, upsample

    def forward(self, x: Tensor, feature: Tensor) -> Tensor:
        for up in self.ups:
            if self.skip:
                resized = resize(feature, x.shape[-2:], self.upsample)
                x = torch.cat([x, resized], dim=1)
            x = up(x)
        return self.final(x).float()


class Generator(nn.Module):
    """Encoder, warp, bottleneck, decoder(s).

    ``kind`` single: FOMM's decoder, sigmoid output; dual: "Feature Decoupling" section 2.2.
    """

    def __init__(
        self, config: GeneratorConfig, channels: int, geometry: str, upsample: str = "nearest"
    ) -> None:
        super().__init__()
        self.config, self.geometry, self.dual = config, geometry, config.kind == "dual"
        first, *_, deep = widths(config)
        self.first = Same(channels, first, 7)
        self.downs = nn.Sequential(*(Down(a, b) for a, b in pairwise(widths(config))))
        skip = deep if self.dual else 0
        self.bottleneck = nn.Sequential(*(Residual(deep) for _ in range(config.blocks)))
        self.content = Decoder(config, channels, skip, upsample)
        if self.dual:
            self.texture = Decoder(config, channels, skip, upsample)
            if config.bottleneck == "split":
                blocks = (Residual(deep) for _ in range(config.blocks))
                self.texture_bottleneck = nn.Sequential(*blocks)

    def encode(self, image: Tensor) -> Tensor:
        """Source feature, once per source: (B, C, S, S) in [0, 1] -> (B, 256, S/4, S/4)."""
        x: Tensor = self.downs(self.first(image.to(self.first.conv.weight.dtype)))
        return x

    def decode(self, feature: Tensor, motion: Motion) -> Prediction:
        """Warp and occlude the source feature once, then decode it into a frame."""
        warped = operators.warp_occlude(feature, *motion, self.geometry)
        deep = self.bottleneck(warped)
        content_logit = self.content(deep, warped)
        content = torch.sigmoid(content_logit)
        if not self.dual:
            return Prediction(content, content, torch.zeros_like(content))
        if self.config.bottleneck == "split":
            deep = self.texture_bottleneck(warped)
        texture = self.texture(deep, warped)
        if self.config.fusion == "pixel":
            return Prediction(content + texture, content, texture)
        image = torch.sigmoid(content_logit + texture)
        return Prediction(image, content, image - content)


class Source(NamedTuple):
    """Computed once per source: small (B, C, S/4, S/4), keypoints, the generator's feature."""

    small: Tensor
    keypoints: Keypoints
    feature: Tensor


class AnimationModel(Model):
    """Animates a source with the keypoints of driving frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        channels, count = config.channels, config.keypoints.count
        shared = channels, config.geometry, config.upsample
        self.keypoint_detector = KeypointDetector(config.keypoints, *shared)
        self.down = AntiAlias(channels, 4, config.geometry)
        self.dense_motion = DenseMotion(config.motion, count, *shared)
        self.generator = Generator(config.generator, *shared)
        self.background: Background | None = None
        if config.motion.background == "affine":
            self.background = Background(config.motion.width, channels)

    def encode(self, image: Tensor, keypoints: Keypoints | None = None) -> Source:
        """All about a source, (B, C, S, S) in [0, 1]; ``keypoints``: as detected before."""
        if keypoints is None:
            keypoints = self.keypoint_detector(image)
        return Source(self.down(image), keypoints, self.generator.encode(image))

    def background_motion(self, source_small: Tensor, driving_small: Tensor) -> Tensor | None:
        """[A b] (B, 2, 3) of what no keypoint moves, from images x 0.25; None: it stays still."""
        if self.background is None:
            return None
        found: Tensor = self.background(source_small, driving_small)
        return found

    def animate(
        self, source: Source, target: Keypoints, background: Tensor | None = None
    ) -> tuple[Prediction, Motion]:
        """The source as it looks when its keypoints are at ``target``."""
        motion = self.dense_motion(source.small, source.keypoints, target, background)
        return self.generator.decode(source.feature, motion), motion
