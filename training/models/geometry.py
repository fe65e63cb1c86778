"""Coordinates: points, grids, jacobians, heatmaps, and the one warp.

Convention: a point is (x, y) in [-1, 1]; images are NCHW; a deformation is (B, h, w, 2) and holds,
for each output pixel, where to read in the source. ``geometry`` says what -1 and +1 mean:

- ``half_pixel``: the image's edges. The centre of pixel i of n is (2 i + 1) / n - 1, at every
  resolution.
- ``fomm_aligned``: the centres of the outermost pixels (linspace(-1, 1)), for FOMM's weights that
  were trained before torch 1.3, whose grid_sample meant align_corners=True. The public ones were.
- ``fomm_unaligned``: the same points, but sampling takes -1 and +1 for the edges, so an identity is
  none: for FOMM's weights trained with torch 1.3 or later, which meant align_corners=False.

Sampling is bilinear with zero padding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..coordinates import pixels_to_points

_Function = TypeVar("_Function", bound=Callable[..., Any])


def in_float32(function: _Function) -> _Function:
    """Run ``function`` without autocast: bfloat16's 8 bits would round coordinates to half a pixel.

    Outside of autocast it changes nothing, so exported graphs do not contain it.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                with torch.autocast(device, enabled=False):
                    return wrapper(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def make_grid(height: int, width: int, geometry: str, device: torch.device | None = None) -> Tensor:
    """Points of all pixel centres, float32 (height, width, 2), xy order."""
    x, y = (
        pixels_to_points(torch.arange(n, dtype=torch.float32, device=device), n, geometry)
        for n in (width, height)
    )
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


def resize_map(x: Tensor, height: int, width: int) -> Tensor:
    """Bilinear resize of (B, C, h, w) to (B, C, height, width), align_corners=False."""
    if x.shape[-2:] == (height, width):
        return x
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


@in_float32
def resize_by_matrices(x: Tensor, height: int, width: int) -> Tensor:
    """`resize_map` as two products of matrices, for one or two channels: engines for CPUs resize
    with channels last, which takes them up to ten times as long."""
    rows, columns = (
        bilinear_weights(n, size, x.device)
        for n, size in zip(x.shape[-2:], (height, width), strict=True)
    )
    return rows @ x @ columns.T


def bilinear_weights(cells: int, size: int, device: torch.device) -> Tensor:
    """Weights (size, cells) of linear interpolation at `size` pixel centres."""
    one = torch.eye(cells, device=device)[None]
    return F.interpolate(one, size=size, mode="linear", align_corners=False)[0].T


def resize_deformation(deformation: Tensor, height: int, width: int, geometry: str) -> Tensor:
    """Resize a deformation (B, h, w, 2) to (B, height, width, 2).

    In ``half_pixel`` the displacement is what is resized, so that identity and translations stay
    exact up to the border; FOMM resizes the coordinates.
    """
    h, w = deformation.shape[1:3]
    if (h, w) == (height, width):
        return deformation
    if geometry != "half_pixel":
        return resize_map(deformation.permute(0, 3, 1, 2), height, width).permute(0, 2, 3, 1)
    displacement = deformation - make_grid(h, w, geometry, deformation.device)
    displacement = resize_map(displacement.permute(0, 3, 1, 2), height, width)
    return displacement.permute(0, 2, 3, 1) + make_grid(height, width, geometry, deformation.device)


def warp(feature: Tensor, deformation: Tensor, geometry: str) -> Tensor:
    """Read ``feature`` (B, C, H, W) where ``deformation`` (B, h, w, 2) says; result (B, C, H, W).

    Coordinates stay float32 whatever the feature's dtype.
    """
    grid = resize_deformation(deformation.float(), feature.shape[-2], feature.shape[-1], geometry)
    return sample(feature, grid, geometry)


def sample(feature: Tensor, grid: Tensor, geometry: str) -> Tensor:
    """Bilinear, zero-padded reading of (B, C, H, W) at points (B, h, w, 2) -> (B, C, h, w)."""
    edges = to_edges(grid.float(), feature, geometry)
    return F.grid_sample(feature.float(), edges, align_corners=False).to(feature.dtype)


def to_edges(grid: Tensor, feature: Tensor, geometry: str) -> Tensor:
    """Points (..., 2) where -1 and +1 are the edges of ``feature`` (B, C, H, W), which is read
    there. So one sampling, with align_corners=False, serves all geometries."""
    if geometry != "fomm_aligned":
        return grid
    height, width = feature.shape[-2:]
    x, y = grid[..., 0] * ((width - 1) / width), grid[..., 1] * ((height - 1) / height)
    return torch.stack([x, y], dim=-1)


def sample_within(feature: Tensor, grid: Tensor) -> Tensor:
    """Bilinear reading of (B, C, n, n) at points (B, h, w, 2); outside it repeats the border.

    grid_sample's own border padding takes ONNX Runtime three times as long.
    """
    edge = 1 - 1 / feature.shape[-1]
    return sample(feature, grid.clamp(-edge, edge), "half_pixel")


def mirrored(grid: Tensor) -> Tensor:
    """Points outside of [-1, 1] reflected at its ends."""
    return grid - 2 * F.relu(grid - 1) + 2 * F.relu(-1 - grid)


def inverse_2x2(matrix: Tensor, floor: float = 1e-3) -> Tensor:
    """Closed-form inverse of (..., 2, 2); abs(det) is held at ``floor`` or more, its sign kept."""
    a, b = matrix[..., 0, 0], matrix[..., 0, 1]
    c, d = matrix[..., 1, 0], matrix[..., 1, 1]
    det = a * d - b * c
    sign = torch.where(det < 0, -1.0, 1.0)
    det = sign * det.abs().clamp(min=floor)
    adjugate = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2))
    return adjugate / det[..., None, None]


def gaussian_heatmap(points: Tensor, grid: Tensor, variance: float) -> Tensor:
    """exp(-|z - p|^2 / (2 variance)): points (B, K, 2), grid (h, w, 2) -> (B, K, h, w)."""
    offset = grid - points[:, :, None, None, :]
    return torch.exp(-offset.square().sum(-1) / (2 * variance))


class AntiAlias(nn.Module):
    """Gaussian blur, sigma (factor - 1) / 2, and x 1/factor subsampling of (B, C, H, W).

    ``half_pixel``: even kernel, so that a pixel of the result is centred on a block of ``factor``
    pixels; FOMM: odd kernel, strides from pixel 0. factor is 2 or more.
    """

    weight: Tensor

    def __init__(self, channels: int, factor: int, geometry: str) -> None:
        super().__init__()
        self.factor, self.channels = factor, channels
        sigma = (factor - 1) / 2
        radius = round(4 * sigma)
        odd = geometry != "half_pixel"
        self.padding = radius if odd else radius - factor // 2
        taps = torch.arange(2 * radius + odd, dtype=torch.float32) - radius + 0.5 * (not odd)
        line = torch.exp(-taps.square() / (2 * sigma**2))
        kernel = torch.outer(line, line)
        kernel = kernel / kernel.sum()
        self.register_buffer("weight", kernel.expand(channels, 1, *kernel.shape).clone())

    @in_float32
    def forward(self, image: Tensor) -> Tensor:
        weight = self.weight.to(image.dtype)
        return F.conv2d(image, weight, None, self.factor, self.padding, groups=self.channels)
