"""The whole model: detector, dense motion and generator of one configuration."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ...config import ModelConfig
from ..base import Model
from ..geometry import AntiAlias
from .dense_motion import DenseMotion, Motion
from .generator import Generator, Prediction
from .keypoint_detector import KeypointDetector, Keypoints


class Source(NamedTuple):
    """Computed once per source: small (B, C, S/4, S/4), keypoints, the generator's feature."""

    small: Tensor
    keypoints: Keypoints
    feature: Tensor


class AnimationModel(Model):
    """Animates a source with the keypoints of driving frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        channels, geometry = config.channels, config.geometry
        self.keypoint_detector = KeypointDetector(config.keypoints, channels, geometry)
        self.down = AntiAlias(channels, 4, geometry)
        self.dense_motion = DenseMotion(config.motion, config.keypoints.count, channels, geometry)
        self.generator = Generator(config.generator, channels, geometry)

    def encode(self, image: Tensor, keypoints: Keypoints | None = None) -> Source:
        """All about a source, (B, C, S, S) in [0, 1]; ``keypoints``: as detected before."""
        if keypoints is None:
            keypoints = self.keypoint_detector(image)
        return Source(self.down(image), keypoints, self.generator.encode(image))

    def animate(self, source: Source, target: Keypoints) -> tuple[Prediction, Motion]:
        """The source as it looks when its keypoints are at ``target``."""
        motion = self.dense_motion(source.small, source.keypoints, target)
        return self.generator.decode(source.feature, motion), motion
