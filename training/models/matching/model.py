"""The matching model: matcher, generator, what passes between them; and the landmark detector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...config import ModelConfig
from ..base import Model
from .fields import Spline
from .generator import CorrectingGenerator, Frame, SourceLayers
from .landmarks import LandmarkDetector
from .matcher import Descriptors, Match, Matcher
from .transfer import Passed, Passing, light


class Seen(NamedTuple):
    """Of a driving frame: descriptors, and its mean level, (B, 1, S/4, S/4)."""

    descriptors: Descriptors
    light: Tensor


class Motion(NamedTuple):
    """Where the frame reads the source's low-pass and its texture, each (B, S/4, S/4, 2)."""

    deformation: Tensor
    stiff: Tensor


class Animation(NamedTuple):
    """A frame, and how it reads the source."""

    frame: Frame
    motion: Motion


class MatchingModel(Model):
    """Animates a source by the displacement between a reference and a driving frame."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        size, grid = config.image_size, config.matcher.grid
        self.matcher = Matcher(config.matcher, config.channels, size)
        self.passing = Passing(config.matcher, size)
        self.spline = Spline(grid, size // 4)
        self.stiff_spline = Spline(grid, size // 4, config.matcher.stiff)
        self.generator = CorrectingGenerator(config.corrector, config.channels)
        self.landmarks: LandmarkDetector | None = None
        if config.landmarks.count:
            self.landmarks = LandmarkDetector(config.landmarks, config.channels, size)

    def networks(self) -> list[nn.Module]:
        found = [] if self.landmarks is None else [self.landmarks]
        return [self.matcher, self.generator, *found]

    def observe(self, image: Tensor) -> Seen:
        """Look at a driving frame, (B, C, S, S) in [0, 1]."""
        return Seen(self.matcher.encoder(image), light(image))

    def match(self, driving: Seen, reference: Seen) -> tuple[Match, Passed]:
        """The motion between two frames, in full and as it passes."""
        match = self.matcher(driving.descriptors, reference.descriptors)
        return match, self.passing(match, driving.light, reference.light)

    def move(self, displacement: Tensor) -> Motion:
        """A displacement (B, n, n, 2) as deformations."""
        return Motion(self.spline(displacement), self.stiff_spline(displacement))

    def encode(self, image: Tensor) -> SourceLayers:
        """A source (B, C, S, S), once."""
        layers: SourceLayers = self.generator.encode(image)
        return layers

    def animate(self, source: SourceLayers, passed: Passed) -> Animation:
        """The frame, from a source and what passed."""
        motion = self.move(passed.displacement)
        return Animation(self.generator(source, *motion, *passed), motion)


def both(first: Tensor, second: Tensor, model: MatchingModel) -> tuple[Seen, Seen]:
    """Two frames seen in one batch."""
    seen = model.observe(torch.cat([first, second]))
    halves = zip(*(x.chunk(2) for x in (*seen.descriptors, seen.light)), strict=True)
    one, other = (Seen(Descriptors(fine, coarse), level) for fine, coarse, level in halves)
    return one, other
