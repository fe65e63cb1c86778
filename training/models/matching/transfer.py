"""What passes from the driving frame to the picture, and how: a displacement, its confidence and a
shading, a few thousand numbers. Smooth deformations of displacements; folds, roughness and quality.

Convention: a displacement is (B, n, n, 2) in points, xy: how far from its own place a cell is read.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput
from ..geometry import in_float32, make_grid, sample_within
from ..one_euro import SMOOTHING_CONTROLS
from .matcher import Match, Seen

DARKEST = 0.02  # of [0, 1], added to black and to white: neither says much about light
MOST = 1.4  # of the log of the shading: a factor of 4

CONTROLS = (
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),
    ControlInput("shade", 1.0, (0.0, 1.0), "", "share of the shading that is passed on; 0: none"),
    *SMOOTHING_CONTROLS,
)


class Passed(NamedTuple):
    """For each cell of the driving frame: displacement (B, n, n, 2) in points, from where it was in
    the reference; confidence (B, 1, n, n) in [0, 1]; shading (B, 1, m, m), log of a factor
    of the odds y / (1 - y) of a grey level y: white gets no whiter, black no blacker."""

    displacement: Tensor
    confidence: Tensor
    shading: Tensor


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


@in_float32
def passed_on(match: Match, driving: Seen, reference: Seen, spline: Spline, cells: int) -> Passed:
    """Reduce a match to the few numbers that pass.

    Args:
        spline: of the displacement's cells, at S/4 pixels.
        cells: of the shading, a side; 0: none.
    """
    fine = match.fine.float() * (2 / match.fine.shape[-1])
    pool = fine.shape[-1] // spline.cells
    displacement = F.avg_pool2d(fine, pool).permute(0, 2, 3, 1)
    confidence = F.avg_pool2d(1 / (1 + match.log_error.float().exp()), pool)
    if cells:
        moved = sample_within(reference.light, spline(displacement.detach()))
        shading = light_between(driving.light, moved, cells)
    else:
        shading = torch.zeros_like(driving.light[:, :, :1, :1])
    return Passed(displacement, confidence, shading)


def light_between(driving: Tensor, reference: Tensor, cells: int) -> Tensor:
    """Log of the ratio of two lights' odds, (B, 1, cells, cells)."""
    levels = [F.avg_pool2d(x, x.shape[-1] // cells) for x in (driving, reference)]
    odds = [torch.log((x + DARKEST) / (1 + DARKEST - x)) for x in levels]
    return (odds[0] - odds[1]).clamp(-MOST, MOST)


@in_float32
def put(passed: Passed, alignment: Tensor, scale: Tensor, shade: Tensor) -> Passed:
    """What passed, read where the source's cells lie in the driving frame, and scaled.

    Displacements are not turned. A scale above 1 does not strengthen the shading.

    Args:
        alignment: (1, n, n, 2), points: of the source's cells in the reference. scale, shade: (1,).
    """
    place = moved_place(passed.displacement.permute(0, 3, 1, 2), alignment, scale)
    displacement = sample_within(passed.displacement.permute(0, 3, 1, 2), place)
    confidence = sample_within(passed.confidence, place)
    cells = passed.shading.shape[-1]
    coarser = F.avg_pool2d(place.permute(0, 3, 1, 2), place.shape[1] // cells)
    shading = sample_within(passed.shading, coarser.permute(0, 2, 3, 1))
    return Passed(
        scale * displacement.permute(0, 2, 3, 1), confidence, shade * scale.clamp(max=1.0) * shading
    )


def moved_place(displacement: Tensor, alignment: Tensor, scale: Tensor) -> Tensor:
    """Where the source's cells lie in the driving frame, (1, n, n, 2), points.

    What is seen at x of the animated source came from x + s d. The alignment A says where that is
    in the reference, and in the driving frame it has moved on by -d: to A(x + s d) - d. That is
    where d is to be read; here it is read at A(x) first, one step of a fixed point.

    Args:
        displacement: (1, 2, n, n), d of the driving frame. alignment: (1, n, n, 2) in the
            reference. scale: s, (1,).
    """
    n = alignment.shape[1]
    own = make_grid(n, n, "half_pixel", alignment.device)
    moved = sample_within(displacement, alignment).permute(0, 2, 3, 1)
    before = own + scale * moved
    offset = (own - alignment).permute(0, 3, 1, 2)  # 0 everywhere where nothing is aligned
    return before - sample_within(offset, before).permute(0, 2, 3, 1) - moved


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
