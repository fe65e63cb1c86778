"""An image gives keypoints, the keypoints of two frames give deformation and occlusion; and the
blocks of which these networks are made, (B, C, H, W) in and out.

Source: METHOD, "Networks of the keypoint models", 1 and 2.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import KeypointConfig, MotionConfig
from ..geometry import AntiAlias, gaussian_heatmap, in_float32, inverse_2x2, make_grid, sample
from ..operators import node, sampling


def resize(x: Tensor, size: tuple[int, ...], mode: str) -> Tensor:
    """(B, C, h, w) at another size (height, width), nearest or bilinear (half_pixel)."""
    return F.interpolate(x, size, mode=mode, align_corners=None if mode == "nearest" else False)


class Same(nn.Module):
    """conv -> BatchNorm -> ReLU at the same size."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class Down(Same):
    """conv3 -> BatchNorm -> ReLU -> average pool: half the size."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(super().forward(x), 2)


#: By phase of the result, which of a kernel's three taps read which of two neighbouring pixels.
_PHASES = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])


def conv_of_doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """conv3 of padding 1 on (B, C, h, w) upsampled x2 (nearest), for 4/9 of the work: taps that
    read the same pixel are added up, and one conv2 makes all four phases of the result.

    Exact but for rounding, and it has a gradient; export's rewrite.py does the same to a graph. The
    result is laid out channels_last.
    """
    batch, _, height, width = x.shape
    taps = _PHASES.to(weight)
    kernels = torch.einsum("oiyx,pay,qbx->pqoiab", weight, taps, taps).flatten(0, 2)
    y = F.conv2d(x, kernels, None if bias is None else bias.repeat(4), padding=1)
    phases = y.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))  # rows, columns, p, q, outputs
    rows = [
        torch.stack([phases[:, p : p + height, q : q + width, p, q] for q in (0, 1)], dim=3)
        for p in (0, 1)
    ]
    whole = torch.stack(rows, dim=2)  # (B, h, p, w, q, outputs)
    return whole.view(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


#: Pixels a side from which the quick way pays: it makes a row and a column more.
QUICK_SIDE = 8


class Up(Same):
    """Upsample x2, nearest or bilinear -> conv3 -> BatchNorm -> ReLU: twice the size. In training
    the nearest way is the ``quick`` one."""

    def __init__(self, inputs: int, outputs: int, mode: str = "nearest") -> None:
        super().__init__(inputs, outputs)
        self.mode, self.quick = mode, mode == "nearest"

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.quick and min(x.shape[-2:]) >= QUICK_SIDE:
            return F.relu(self.norm(conv_of_doubled(x, self.conv.weight, self.conv.bias)))
        height, width = x.shape[-2:]
        return super().forward(resize(x, (2 * height, 2 * width), self.mode))


class Residual(nn.Module):
    """x + conv3(ReLU(BN(conv3(ReLU(BN(x))))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(y)))


class Hourglass(nn.Module):
    """``depth`` downs, as many ups, every skip concatenated, the raw input included and last.

    Widths are min(max_features, width * 2^(i+1)) going down and min(max_features, width * 2^i)
    coming up. The result has ``outputs`` channels at the input's size, which 2^depth must divide.
    """

    def __init__(
        self, inputs: int, width: int, depth: int, max_features: int, upsample: str = "nearest"
    ) -> None:
        super().__init__()

        def capped(i: int) -> int:
            return min(max_features, width * 2**i)

        downs = [inputs, *(capped(i + 1) for i in range(depth))]
        self.downs = nn.ModuleList(Down(a, b) for a, b in pairwise(downs))
        # Above the bottom, an up block reads the one below it and the skip of the same size.
        self.ups = nn.ModuleList(
            Up((1 if i == depth - 1 else 2) * capped(i + 1), capped(i), upsample)
            for i in reversed(range(depth))
        )
        self.outputs = capped(0) + inputs

    def forward(self, x: Tensor) -> Tensor:
        skips = [x.to(self.downs[0].conv.weight.dtype)]
        for down in self.downs:
            skips.append(down(skips[-1]))
        y = skips.pop()
        for up in self.ups:
            y = torch.cat([up(y), skips.pop()], dim=1)
        return y


class Keypoints(NamedTuple):
    """K local frames. value: (B, K, 2) points in [-1, 1], xy. jacobian: (B, K, 2, 2)."""

    value: Tensor
    jacobian: Tensor


class KeypointDetector(nn.Module):
    """Hourglass on the image x 0.25, spatial softmax, expected coordinates; supervised points come
    last."""

    def __init__(
        self, config: KeypointConfig, channels: int, geometry: str, upsample: str = "nearest"
    ) -> None:
        super().__init__()
        self.geometry = geometry
        self.temperature = config.temperature
        self.down = AntiAlias(channels, 4, geometry)
        sizes = config.width, config.depth, config.max_features
        self.hourglass = Hourglass(channels, *sizes, upsample)
        # FOMM's head has no padding: its 58x58 heatmap is stretched over [-1, 1] by make_grid.
        padding = config.head_kernel // 2 if geometry == "half_pixel" else 0
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


class Motion(NamedTuple):
    """Deformation (B, h, w, 2), where to read in the source; occlusion (B, 1, h, w) in [0, 1]."""

    deformation: Tensor
    occlusion_map: Tensor


@in_float32
def local_motions(source: Keypoints, driving: Keypoints, grid: Tensor) -> Tensor:
    """T_k(z) = p_k^S + J_k^S (J_k^D)^-1 (z - p_k^D), and the identity as slot 0.

    grid: (h, w, 2) -> (B, K + 1, h, w, 2). Source: FOMM Eq. 4.
    """
    affine = source.jacobian @ inverse_2x2(driving.jacobian)
    offset = grid - driving.value[:, :, None, None, :]
    x, y = offset[..., 0], offset[..., 1]
    a = affine[:, :, :, :, None, None]
    turned = (a[:, :, row, 0] * x + a[:, :, row, 1] * y for row in range(2))
    moved = torch.stack([*turned], -1) + source.value[:, :, None, None, :]
    identity = grid.expand(moved.shape[0], 1, *grid.shape)
    return torch.cat([identity, moved], dim=1)


def sparse_motion(
    source_small: Tensor, source: Keypoints, driving: Keypoints, variance: float, geometry: str
) -> Tensor:
    """The dense motion network's input: (B, (K + 1)(C + 1), h, w).

    Per slot: heatmap of driving minus source, then the source warped by the slot's motion. Slot 0:
    zeros and the unwarped source. A custom operator of a graph (operators.py).
    """
    batch, channels, height, width = source_small.shape
    if torch.compiler.is_exporting():
        shape = (1, (source.value.shape[1] + 1) * (channels + 1), height, width)
        inputs = (source_small, *source, *driving)
        attributes = {**sampling(geometry), "variance": variance}
        return node("SparseMotion", inputs, torch.float32, shape, geometry, **attributes)
    grid = make_grid(height, width, geometry, source_small.device)
    heat, before = (gaussian_heatmap(p.value, grid, variance) for p in (driving, source))
    heatmaps = F.pad(heat - before, (0, 0, 0, 0, 1, 0))[:, :, None]
    motions = local_motions(source, driving, grid)
    slots = motions.shape[1]
    # All slots in one sampling, laid out below each other in the grid: the source is read once.
    stacked = motions.reshape(batch, slots * height, width, 2)
    warped = sample(source_small.float(), stacked, geometry)
    warped = warped.view(batch, channels, slots, height, width).transpose(1, 2)
    if geometry != "fomm_unaligned":
        # Reading pixel centres at pixel centres: the unwarped source itself.
        warped = torch.cat([source_small.float()[:, None], warped[:, 1:]], dim=1)
    return torch.cat([heatmaps, warped], dim=2).flatten(1, 2)


def compose_motion(
    mask_logits: Tensor, source: Keypoints, driving: Keypoints, geometry: str
) -> Tensor:
    """Softmax over the slots and the weighted sum of their motions, (B, K + 1, h, w) -> float32 (B,
    h, w, 2). A custom operator of a graph."""
    height, width = mask_logits.shape[-2:]
    if torch.compiler.is_exporting():
        inputs = (mask_logits, *source, *driving)
        return node("ComposeMotion", inputs, torch.float32, (1, height, width, 2), geometry)
    grid = make_grid(height, width, geometry, mask_logits.device)
    mask = mask_logits.float().softmax(dim=1)
    return (mask[..., None] * local_motions(source, driving, grid)).sum(dim=1)


@in_float32
def apply_affine(affine: Tensor, grid: Tensor) -> Tensor:
    """A z + b at the points (h, w, 2) of a grid: [A b] (B, 2, 3) -> (B, h, w, 2)."""
    a = affine[:, None, None]
    x, y = grid[..., 0], grid[..., 1]
    return torch.stack([a[..., i, 0] * x + a[..., i, 1] * y + a[..., i, 2] for i in (0, 1)], dim=-1)


class DenseMotion(nn.Module):
    """Hourglass over the sparse motions; masks and occlusion map from two heads."""

    def __init__(
        self, config: MotionConfig, keypoints: int, channels: int, geometry: str,
        upsample: str = "nearest",
    ) -> None:  # fmt: skip
        super().__init__()
        self.geometry = geometry
        self.variance = config.variance
        sizes = config.width, config.depth, config.max_features
        self.hourglass = Hourglass((keypoints + 1) * (channels + 1), *sizes, upsample)
        kernel = config.head_kernel
        self.mask = nn.Conv2d(self.hourglass.outputs, keypoints + 1, kernel, padding=kernel // 2)
        self.occlusion = nn.Conv2d(self.hourglass.outputs, 1, kernel, padding=kernel // 2)

    def forward(
        self, source_small: Tensor, source: Keypoints, driving: Keypoints,
        background: Tensor | None = None,
    ) -> Motion:  # fmt: skip
        """Motion that leads from driving to source coordinates, by the keypoints of both frames.

        Args:
            source_small: (B, C, h, w), the source x 0.25.
            background: [A b] (B, 2, 3), half_pixel, the motion of slot 0; None: it stays still.
        """
        sparse = sparse_motion(source_small, source, driving, self.variance, self.geometry)
        if background is not None:
            grid = make_grid(*source_small.shape[-2:], self.geometry, source_small.device)
            moved = apply_affine(background, grid)
            seen = sample(source_small.float(), moved, self.geometry)
            sparse = torch.cat([sparse[:, :1], seen, sparse[:, 1 + seen.shape[1] :]], dim=1)
        mask_logits, occlusion = self.maps(sparse)
        deformation = compose_motion(mask_logits, source, driving, self.geometry)
        if background is not None:  # compose_motion took slot 0 for the identity
            share = mask_logits.float().softmax(dim=1)[:, 0, :, :, None]
            deformation = deformation + share * (moved - grid)
        return Motion(deformation, torch.sigmoid(occlusion.float()))

    def maps(self, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """What both heads make."""
        feature = self.hourglass(sparse)
        return self.mask(feature), self.occlusion(feature)
