"""What passes from the driving frame to the picture, and how: the stage `transfer`.

A displacement, its confidence and a shading: a few thousand numbers, not a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ....runtime.bundle.manifest import ControlInput
from ...config import ModelConfig
from ..geometry import in_float32, make_grid, sample_within
from ..one_euro import SMOOTHING_CONTROLS
from .fields import Spline
from .matcher import Match, Seen

DARKEST = 0.02  # of [0, 1], added to black and to white: neither says much about light
MOST = 1.4  # of the log of the shading: a factor of 4

CONTROLS = (
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),
    ControlInput("shade", 1.0, (0.0, 1.0), "", "share of the shading that is passed on; 0: none"),
    *SMOOTHING_CONTROLS,
)


def state_size(config: ModelConfig) -> int:
    """Elements of the smoothing's state: "seen", displacement and shading, their speeds."""
    cells = 2 * config.matcher.grid**2 + max(1, config.matcher.shading) ** 2
    return 1 + 2 * cells


class Passed(NamedTuple):
    """For each cell of the driving frame: displacement (B, n, n, 2) in points, from where it was in
    the reference; confidence (B, 1, n, n) in [0, 1]; shading (B, 1, m, m), log of a factor
    of the odds y / (1 - y) of a grey level y: white gets no whiter, black no blacker."""

    displacement: Tensor
    confidence: Tensor
    shading: Tensor


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
