"""Monkey-Net's networks: keypoints with covariances, a motion of shifts, a generator of skips.

Source: METHOD, "Monkey-Net".
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import GeneratorConfig, KeypointConfig, ModelConfig, MotionConfig
from ..base import Model
from ..geometry import in_float32, inverse_2x2, make_grid, resize_map, sample
from ..keypoints.model import widths
from ..keypoints.motion import Down, Hourglass, Residual, Same, Up
from ..operators import warp_occlude

ADDED = 1e-7  # to every cell of a heatmap, so that its covariance has an inverse
NARROWEST = 1e-3  # the least singular value of a covariance
PEAK = 0.01  # of the heatmaps that networks see
STAYS = 2.0  # bias of the slot that stands still, at the start


class Keypoints(NamedTuple):
    """K blobs. value: (B, K, 2) points in [-1, 1], xy. covariance: (B, K, 2, 2)."""

    value: Tensor
    covariance: Tensor


def quarter(image: Tensor) -> Tensor:
    """(B, C, S, S) x 0.25, read between the middle pixels of each block of 4 x 4."""
    height, width = image.shape[-2:]
    return resize_map(image, height // 4, width // 4)


@in_float32
def heatmaps(points: Keypoints, grid: Tensor) -> Tensor:
    """PEAK exp(-d' S^-1 d / 2) at the points (h, w, 2) of a grid: (B, K, h, w)."""
    inverse = inverse_2x2(points.covariance, floor=0.1 * NARROWEST**2)[:, :, :, :, None, None]
    offset = grid - points.value[:, :, None, None, :]
    x, y = offset[..., 0], offset[..., 1]
    across = inverse[:, :, 0, 0] * x + (inverse[:, :, 0, 1] + inverse[:, :, 1, 0]) * y
    return PEAK * torch.exp(-0.5 * (across * x + inverse[:, :, 1, 1] * y * y))


def smaller_eigenvalue(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """Of symmetric matrices [[xx, xy], [xy, yy]]."""
    # 1e-12, since a root's slope at 0 is infinite.
    return (xx + yy - ((xx - yy).square() + 4 * xy * xy + 1e-12).sqrt()) / 2


def lifted(covariance: Tensor) -> Tensor:
    """Symmetric (B, K, 2, 2) and as much of the identity as makes both eigenvalues NARROWEST or
    more: elements that were smoothed one by one may be those of no covariance."""
    xx, xy, yy = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    short = (NARROWEST - smaller_eigenvalue(xx, xy, yy)).clamp(min=0)
    return covariance + short[..., None, None] * torch.eye(2, device=covariance.device)


@in_float32
def blobs(heatmap: Tensor) -> Keypoints:
    """Mean and covariance of (B, K, h, w) maps that sum to 1, the latter scaled so that its
    smaller singular value is at least NARROWEST."""
    weight = heatmap + ADDED
    grid = make_grid(*heatmap.shape[-2:], "half_pixel", heatmap.device)
    # Sums of products rather than matrix products, which a GPU may compute in TF32.
    value = (weight[..., None] * grid).sum(dim=(2, 3))
    x, y = (grid - value[:, :, None, None]).unbind(-1)
    xx, xy, yy = ((weight * p).sum(dim=(2, 3)) for p in (x * x, x * y, y * y))
    narrow = smaller_eigenvalue(xx, xy, yy).clamp(min=1e-9)
    widen = narrow.clamp(min=NARROWEST) / narrow
    covariance = torch.stack([xx, xy, xy, yy], dim=-1) * widen[..., None]
    return Keypoints(value, covariance.unflatten(-1, (2, 2)))


class Detector(nn.Module):
    """Hourglass on the image x 0.25, conv3, spatial softmax; mean and covariance of each map."""

    def __init__(self, config: KeypointConfig, channels: int) -> None:
        super().__init__()
        self.temperature = config.temperature
        sizes = config.width, config.depth, config.max_features
        self.hourglass = Hourglass(channels, *sizes)
        kernel = config.head_kernel
        outputs = self.hourglass.outputs
        self.heatmap = nn.Conv2d(outputs, config.count, kernel, padding=kernel // 2)

    def forward(self, image: Tensor) -> Keypoints:
        """Detect the keypoints of (B, C, S, S) in [0, 1]."""
        logits = self.heatmap(self.hourglass(quarter(image))).float()
        flat = (logits.flatten(2) / self.temperature).softmax(dim=-1)
        return blobs(flat.view(logits.shape))


class Motion(NamedTuple):
    """Deformation (B, h, w, 2), where to read in the source; heatmap_difference (B, K, h, w), of
    driving minus source."""

    deformation: Tensor
    heatmap_difference: Tensor


class DenseMotion(nn.Module):
    """Which shift holds where, and a residual: from heatmap differences and shifted sources."""

    def __init__(self, config: MotionConfig, keypoints: int, channels: int) -> None:
        super().__init__()
        self.slots = keypoints + 1
        inputs = self.slots * (channels + 1)
        self.group = nn.Sequential(*(Same(inputs, inputs, 1, self.slots) for _ in range(2)))
        self.hourglass = Hourglass(inputs, config.width, config.depth, config.max_features)
        kernel = config.head_kernel
        outputs = self.slots + 2
        self.head = nn.Conv2d(self.hourglass.outputs, outputs, kernel, padding=kernel // 2)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        self.head.bias.data.copy_(F.pad(torch.tensor([STAYS]), (0, outputs - 1)))

    def forward(self, source_small: Tensor, source: Keypoints, driving: Keypoints) -> Motion:
        """z + sum of m_k (p_S - p_D) + residual; source_small: (B, C, h, w), the source x 0.25."""
        batch, channels, height, width = source_small.shape
        grid = make_grid(height, width, "half_pixel", source_small.device)
        difference = heatmaps(driving, grid) - heatmaps(source, grid)
        shift = F.pad(source.value - driving.value, (0, 0, 1, 0))  # slot 0 stands still
        where = grid + shift[:, :, None, None]
        # All slots in one sampling, laid out below each other in the grid.
        stacked = where.reshape(batch, -1, width, 2)
        seen = sample(source_small.float(), stacked, "half_pixel")
        seen = seen.view(batch, channels, self.slots, height, width).transpose(1, 2)
        heat = F.pad(difference, (0, 0, 0, 0, 1, 0))[:, :, None]
        slots = torch.cat([heat, seen], dim=2).flatten(1, 2)
        maps = self.head(self.hourglass(self.group(slots.to(self.head.weight.dtype)))).float()
        return Motion(self.compose(maps, shift, grid), difference)

    @in_float32
    def compose(self, maps: Tensor, shift: Tensor, grid: Tensor) -> Tensor:
        """The deformation, from (B, K + 1 + 2, h, w) maps and (B, K + 1, 2) shifts."""
        mask = maps[:, : self.slots].softmax(dim=1)
        moved = (mask[..., None] * shift[:, :, None, None]).sum(dim=1)
        return grid + moved + maps[:, self.slots :].permute(0, 2, 3, 1)


class Generator(nn.Module):
    """Downs whose outputs, the image included, are warped; ups that read them beside the heatmap
    differences; residual blocks, conv1, sigmoid."""

    def __init__(self, config: GeneratorConfig, keypoints: int, channels: int) -> None:
        super().__init__()
        own, depth = widths(config), config.downs
        self.downs = nn.ModuleList(Down(a, b) for a, b in pairwise([channels, *own[1:]]))
        self.ups = nn.ModuleList(
            Up((0 if i == depth - 1 else own[i + 1]) + own[i + 1] + keypoints, own[i])
            for i in reversed(range(depth))
        )
        last = own[0] + channels + keypoints
        self.refine = nn.Sequential(*(Residual(last) for _ in range(config.blocks)))
        self.final = nn.Conv2d(last, channels, 1)

    def encode(self, image: Tensor) -> list[Tensor]:
        """The skips, once per source: the image (B, C, S, S), and what each down makes of it."""
        skips = [image.to(self.final.weight.dtype)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        return skips

    def decode(self, skips: list[Tensor], motion: Motion) -> Tensor:
        """Warp every skip and make the frame (B, C, S, S) in [0, 1]."""
        all_seen = torch.ones_like(motion.deformation[:, None, :, :, 0])
        x: Tensor | None = None
        for i, skip in enumerate(reversed(skips)):
            warped = warp_occlude(skip, motion.deformation, all_seen, "half_pixel")
            heat = resize_map(motion.heatmap_difference, *skip.shape[-2:]).to(skip.dtype)
            x = torch.cat([warped, heat] if x is None else [x, warped, heat], dim=1)
            x = self.ups[i](x) if i < len(self.ups) else self.final(self.refine(x))
        assert x is not None
        return torch.sigmoid(x.float())


class Source(NamedTuple):
    """Computed once per source: small (B, C, S/4, S/4), keypoints, the generator's skips."""

    small: Tensor
    keypoints: Keypoints
    skips: list[Tensor]


class MonkeyNet(Model):
    """Animates a source with the keypoints of driving frames."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        count, channels = config.keypoints.count, config.channels
        self.keypoint_detector = Detector(config.keypoints, channels)
        self.dense_motion = DenseMotion(config.motion, count, channels)
        self.generator = Generator(config.generator, count, channels)

    def encode(self, image: Tensor, keypoints: Keypoints | None = None) -> Source:
        """All about a source, (B, C, S, S) in [0, 1]; ``keypoints``: as detected before."""
        if keypoints is None:
            keypoints = self.keypoint_detector(image)
        return Source(quarter(image), keypoints, self.generator.encode(image))

    def animate(self, source: Source, target: Keypoints) -> tuple[Tensor, Motion]:
        """The source as it looks when its keypoints are at ``target``, and the motion."""
        motion = self.dense_motion(source.small, source.keypoints, target)
        return self.generator.decode(source.skips, motion), motion
