"""Grids of displacements: smooth deformations of any size, folds, roughness and quality.

Convention: a displacement is (B, n, n, 2) in points, xy: how far from its own place a cell is read.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..geometry import in_float32, make_grid


def spline_matrix(cells: int, size: int) -> Tensor:
    """Weights (size, cells) of a uniform cubic B-spline over `cells` at `size` pixel centres.

    The curve passes near its control points, not through them: it smooths by 0.58 cells. Beyond the
    outermost cells it is constant.
    """
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * cells / size - 0.5
    first = at.floor()
    u = at - first
    taps = torch.stack(
        [(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], dim=1
    )
    columns = (first.long()[:, None] + torch.arange(-1, 3)).clamp(0, cells - 1)
    weights = torch.zeros(size, cells, dtype=torch.float64)
    return weights.scatter_add_(1, columns, taps / 6).float()


class Spline(nn.Module):
    """Displacements (B, cells, cells, 2) as a deformation (B, size, size, 2), if ``stiff`` is given
    after averaging to that many cells."""

    weights: Tensor
    grid: Tensor

    def __init__(self, cells: int, size: int, stiff: int | None = None) -> None:
        super().__init__()
        self.cells = cells
        weights = spline_matrix(stiff or cells, size)
        if stiff is not None and stiff != cells:
            block = cells // stiff
            weights = weights @ (torch.eye(stiff).repeat_interleave(block, dim=1) / block)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("grid", make_grid(size, size, "half_pixel"), persistent=False)

    @in_float32
    def forward(self, displacement: Tensor) -> Tensor:
        return self.smooth(displacement).permute(0, 2, 3, 1) + self.grid

    def smooth(self, displacement: Tensor) -> Tensor:
        """The displacement alone, (B, 2, size, size)."""
        planes = displacement.permute(0, 3, 1, 2)
        return self.weights @ planes @ self.weights.T


def determinant(displacement: Tensor) -> Tensor:
    """Determinant of the deformation's jacobian, (B, n - 1, n - 1): change of area, 0 at a fold."""
    cells = displacement.shape[1]
    d = displacement * (cells / 2)  # a step of one cell is 2 / cells
    by_x, by_y = d[:, :, 1:] - d[:, :, :-1], d[:, 1:] - d[:, :-1]
    by_x, by_y = by_x[:, :-1], by_y[:, :, :-1]
    return (1 + by_x[..., 0]) * (1 + by_y[..., 1]) - by_x[..., 1] * by_y[..., 0]


def folding(displacement: Tensor) -> Tensor:
    """By how much areas shrink to less than .3 or grow to more than 3 times; 0 for a calm field."""
    det = determinant(displacement)
    return F.relu(0.3 - det).mean() + 0.1 * F.relu(det - 3).mean()


def roughness(displacement: Tensor) -> Tensor:
    """Mean abs second difference between neighbouring cells, in pixels of 256."""
    d = displacement * 128
    rows = (d[:, 2:] - 2 * d[:, 1:-1] + d[:, :-2]).abs().mean()
    columns = (d[:, :, 2:] - 2 * d[:, :, 1:-1] + d[:, :, :-2]).abs().mean()
    return rows + columns


def judge(displacement: Tensor, confidence: Tensor, deformation: Tensor) -> Tensor:
    """Signs that a frame may be wrong, (B, 4): mean confidence [0, 1]; longest displacement in
    shares of the square's side; shares of the cells that fold and of the pixels that are read from
    outside of the square, whose bars count as picture: the runtime, which knows the bars, counts
    again."""
    folded = (determinant(displacement) < 0.1).float()
    outside = (deformation.abs() > 1).any(dim=-1).float()
    longest = displacement.square().sum(-1).amax(dim=(1, 2)).sqrt() / 2
    means = confidence.mean(dim=(1, 2, 3)), folded.mean(dim=(1, 2)), outside.mean(dim=(1, 2))
    return torch.stack([means[0], longest, *means[1:]], dim=1)
