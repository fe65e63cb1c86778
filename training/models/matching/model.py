"""The matching model: matcher, generator, what passes between them; and the landmark detector."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...config import ModelConfig
from ..base import Model
from .generator import CorrectingGenerator, Frame, SourceLayers
from .landmarks import LandmarkDetector
from .matcher import Match, Matcher, Seen
from .transfer import Passed, Spline, passed_on


class Motion(NamedTuple):
    """Where the frame reads the source's low-pass and its texture, each (B, S/4, S/4, 2)."""

    deformation: Tensor
    stiff: Tensor


class MatchingModel(Model):
    """Animates a source by the displacement between a reference and a driving frame.

    Images are (B, C, S, S) in [0, 1].
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        size, grid = config.image_size, config.matcher.grid
        self.matcher = Matcher(config.matcher, config.channels, size)
        self.spline = Spline(grid, size // 4)
        self.stiff_spline = Spline(grid, size // 4, config.matcher.stiff)
        self.generator = CorrectingGenerator(config.corrector, config.channels)
        self.landmarks: LandmarkDetector | None = None
        if config.landmarks.count:
            self.landmarks = LandmarkDetector(config.landmarks, config.channels, size)

    def observe_both(self, first: Tensor, second: Tensor) -> list[Seen]:
        """Look at two driving frames, in one batch."""
        halves = (x.chunk(2) for x in self.matcher.encoder(torch.cat([first, second])))
        return [Seen(*parts) for parts in zip(*halves, strict=True)]

    def match(self, driving: Seen, reference: Seen) -> tuple[Match, Passed]:
        """The motion between two frames, in full and as it passes."""
        match = self.matcher(driving, reference)
        shading = self.config.matcher.shading
        return match, passed_on(match, driving, reference, self.spline, shading)

    def move(self, displacement: Tensor) -> Motion:
        """A displacement (B, n, n, 2) as deformations."""
        return Motion(self.spline(displacement), self.stiff_spline(displacement))

    def animate(
        self, source: SourceLayers, passed: Passed, correct: bool = True
    ) -> tuple[Frame, Motion]:
        """The frame, from a source and what passed, and how it reads the source."""
        motion = self.move(passed.displacement)
        return self.generator(source, *motion, *passed, correct), motion
