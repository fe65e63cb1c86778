"""The matching model, and its generator: the source, warped, shaded and corrected.

The source is split into a low-pass and the rest, the texture. The low-pass is read through the
deformation, the texture through a stiffer one, so that speckle is moved and not stirred. A small
network gives three slow layers, all neutral at the start: a gain and an offset of the low-pass and
a gate of the texture. So a frame can be composed at any size, and speckle stays speckle.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....runtime.compose import FINER, LOW_PASS
from ...config import CorrectorConfig, ModelConfig
from ..base import Model
from ..geometry import in_float32, make_grid, mirrored, resize_by_matrices, sample_within
from .landmarks import LandmarkDetector
from .matcher import Match, Matcher, Residual, Seen, brightness, start_at_zero
from .transfer import Passed, Spline, passed_on

MOST_TEXTURE = 0.1  # of the log of the gate's correction: texture is hardly strengthened


class SourceLayers(NamedTuple):
    """Of a source: features (B, w, S/4, S/4); low-pass and texture, enlarged for reading (see
    `finer`), (B, C, 3 S / 2, 3 S / 2) and (B, C, 3 S, 3 S)."""

    feature: Tensor
    low: Tensor
    texture: Tensor


class Motion(NamedTuple):
    """Where the frame reads the source's low-pass and its texture, each (B, S/4, S/4, 2)."""

    deformation: Tensor
    stiff: Tensor


class Moved(NamedTuple):
    """As the frame shows them: low-pass (B, C, S/2, S/2) and texture (B, C, S, S) of the source."""

    low: Tensor
    texture: Tensor


class FrameLayers(NamedTuple):
    """Of a frame, each (B, 1, S/4, S/4): frame = gain * low-pass + offset + gate * texture."""

    gain: Tensor
    offset: Tensor
    gate: Tensor


class Frame(NamedTuple):
    """Content and texture, (B, C, S, S), the gate, (B, 1, S, S), and the layers they come from."""

    content: Tensor
    texture: Tensor
    gate: Tensor
    layers: FrameLayers

    def image(self) -> Tensor:
        """The frame (B, C, S, S), not clamped."""
        return self.content + self.gate * self.texture


class CorrectingGenerator(nn.Module):
    line: Tensor
    between: Tensor

    def __init__(self, config: CorrectorConfig, channels: int) -> None:
        super().__init__()
        self.channels, width = channels, config.width
        self.first = nn.Conv2d(16 * channels, width, 3, padding=1)
        self.deep = nn.Sequential(*(Residual(width, d) for d in (1, 2)))
        # beside the feature: the warped low-pass (folded), shading, displacement, confidence
        self.merge = nn.Conv2d(width + 4 * channels + 4, width, 3, padding=1)
        self.correct = nn.Sequential(*(Residual(width, 2**i) for i in range(config.blocks)))
        self.final = start_at_zero(nn.Conv2d(width, 3, 3, padding=1))
        line = torch.from_numpy(LOW_PASS).expand(channels, 1, 1, -1).clone()
        self.register_buffer("line", line, persistent=False)
        weights = cubic_weights(FINER)
        between = torch.einsum("ai,bj->abij", weights, weights).flatten(0, 1)[:, None]
        self.register_buffer("between", between.repeat(channels, 1, 1, 1), persistent=False)

    @in_float32
    def low_pass(self, image: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, C, S/2, S/2)."""
        half = F.pad(F.avg_pool2d(image.float(), 2), (2, 2, 2, 2), mode="replicate")
        rows = F.conv2d(half, self.line, groups=self.channels)
        return F.conv2d(rows, self.line.transpose(2, 3), groups=self.channels)

    def encode(self, image: Tensor) -> SourceLayers:
        """Once per source: (B, C, S, S) in [0, 1]."""
        x = F.pixel_unshuffle(image - 0.3, 4)
        feature = self.deep(self.first(x.to(self.first.weight.dtype)))
        low = self.low_pass(image)
        texture = image.float() - resize_by_matrices(low, *image.shape[-2:])
        return SourceLayers(feature, self.finer(low), self.finer(texture))

    @in_float32
    def finer(self, image: Tensor) -> Tensor:
        """(B, C, n, n) -> (B, C, 3 n, 3 n): every third pixel is one of the image, those between
        are cubic. So a bilinear reading of it is nearly cubic, and exact where nothing moves.

        The convolution takes ONNX Runtime a tenth of the time of its cubic resize.
        """
        padded = F.pad(image.float(), (2,) * 4, mode="replicate")
        phases = F.conv2d(padded, self.between, groups=self.channels)
        return F.pixel_shuffle(phases, FINER)

    def forward(self, feature: Tensor, deformation: Tensor, passed: Passed, moved: Moved) -> Frame:
        """The frame, from the source's feature and what `move` gave."""
        side = deformation.shape[1]
        light = resize_by_matrices(passed.shading, side, side)
        feature = sample_within(feature, deformation)
        cells = torch.cat([10 * passed.displacement.permute(0, 3, 1, 2), passed.confidence], dim=1)
        beside = [
            F.pixel_unshuffle(moved.low, 2), light, resize_by_matrices(cells, side, side)
        ]  # fmt: skip
        x = torch.cat([feature, *(t.to(feature.dtype) for t in beside)], dim=1)
        correction = self.final(F.relu(self.correct(self.merge(x)))).float()
        return self.compose(moved, corrected(correction, light, moved.low))

    def uncorrected(self, moved: Moved, passed: Passed) -> Frame:
        """The source only moved and shaded."""
        side = moved.low.shape[-1] // 2
        light = resize_by_matrices(passed.shading, side, side)
        nothing = torch.zeros_like(light).expand(-1, 3, -1, -1)
        return self.compose(moved, corrected(nothing, light, moved.low))

    @in_float32
    def move(self, source: SourceLayers, motion: Motion) -> Moved:
        """Read the source where the frame shows it."""
        low = sample_within(source.low, denser(motion.deformation, 2))
        # Mirrored beyond the border: repeating the border would turn speckle into streaks.
        return Moved(low, sample_within(source.texture, mirrored(denser(motion.stiff, 4))))

    @in_float32
    def compose(self, moved: Moved, layers: FrameLayers) -> Frame:
        half, size = moved.low.shape[-1], moved.texture.shape[-1]
        layer = torch.cat([layers.gain, layers.offset], dim=1)
        gain, offset = resize_by_matrices(layer, half, half).chunk(2, dim=1)
        content = resize_by_matrices(gain * moved.low + offset, size, size)
        return Frame(content, moved.texture, resize_by_matrices(layers.gate, size, size), layers)


def cubic_weights(times: int) -> Tensor:
    """Weights (times, 5) of a pixel and its neighbours, for the enlarged pixels in its place.
    Source: Keys' cubic, a = -0.75, as in OpenCV and torch."""
    place = (torch.arange(times, dtype=torch.float64) - times // 2) / times
    t = (torch.arange(-2, 3) - place[:, None]).abs()
    near = 1.25 * t**3 - 2.25 * t**2 + 1
    far = -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
    return torch.where(t <= 1, near, torch.where(t < 2, far, 0)).float()


@in_float32
def corrected(correction: Tensor, light: Tensor, low: Tensor) -> FrameLayers:
    """Layers from the network's correction (B, 3, h, w), the shading (B, 1, h, w) and the warped
    low-pass (B, C, 2 h, 2 w)."""
    gain, offset, gate = correction.split(1, dim=1)
    odds = torch.exp(light + gain.clamp(-2, 2))
    grey = F.avg_pool2d(brightness(low), 2).clamp(0, 1)
    factor = odds / (1 + grey * (odds - 1))
    # Log-compressed speckle keeps its contrast where it gets brighter; the root is half way between
    # that and a plain factor. The gate's loss does not reach the gain.
    half = factor.detach().sqrt()
    return FrameLayers(factor, offset, half * torch.exp(gate.clamp(-2.0, MOST_TEXTURE)))


@in_float32
def denser(deformation: Tensor, factor: int) -> Tensor:
    """A deformation (B, n, n, 2) at more pixels: its displacement is resized, bilinear."""
    cells, device = deformation.shape[1], deformation.device
    size = cells * factor
    displacement = deformation - make_grid(cells, cells, "half_pixel", device)
    displacement = resize_by_matrices(displacement.permute(0, 3, 1, 2), size, size)
    return displacement.permute(0, 2, 3, 1) + make_grid(size, size, "half_pixel", device)


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
        """The motion between two frames, in full and as it passes; descriptors are of length 1."""
        match = self.matcher(driving, reference)
        shading = self.config.matcher.shading
        return match, passed_on(match, driving, reference, self.spline, shading)

    def move(self, displacement: Tensor) -> Motion:
        """A displacement (B, n, n, 2) as deformations."""
        return Motion(self.spline(displacement), self.stiff_spline(displacement))

    def animate(self, source: SourceLayers, passed: Passed) -> tuple[Frame, Motion]:
        """The frame, from a source and what passed, and how it reads the source."""
        motion = self.move(passed.displacement)
        return self.frame(source, motion, passed), motion

    def frame(self, source: SourceLayers, motion: Motion, passed: Passed) -> Frame:
        moved = self.generator.move(source, motion)
        return self.generator(source.feature, motion.deformation, passed, moved)
