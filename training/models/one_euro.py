"""One-Euro smoothing of what passes from frame to frame, tensors in and tensors out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...runtime.bundle.manifest import ControlInput

DERIVATIVE_CUTOFF = 1.0  # Hz, as in the One-Euro paper
SHORTEST_STEP = 1e-4  # seconds

SMOOTHING_CONTROLS = (
    ControlInput("min_cutoff", 0.0, (0.0, 1e6), "Hz", "One-Euro's cutoff at rest; 0: no smoothing"),
    ControlInput("beta", 0.0, (0.0, 1e6), "Hz s", "One-Euro's gain of the cutoff with speed"),
    ControlInput("dt_seconds", 1 / 30, (0.0, 1e9), "s", "time since the last frame"),
)


def one_euro(
    parts: Sequence[Tensor], state: Tensor, min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor
) -> tuple[list[Tensor], Tensor]:
    """One-Euro filter of a trajectory of n numbers in parts, of batch 1 -> smoothed, next state.

    The state, (1, 1 + 2 n), is "seen", the smoothed values and their speeds; zeros mean a fresh
    start. With ``min_cutoff`` (Hz) <= 0 all is passed on. Source: Casiez, Roussel and Vogel, CHI
    2012.
    """
    x = torch.cat([part.reshape(1, -1) for part in parts], dim=1)
    n = x.shape[1]
    seen, last, last_speed = state.split([1, n, n], dim=1)
    dt = dt_seconds.clamp(min=SHORTEST_STEP)
    speed = _low_pass((x - last) / dt, last_speed, torch.full_like(dt, DERIVATIVE_CUTOFF), dt)
    cutoff = min_cutoff.clamp(min=0.0) + beta * speed.abs()
    smoothed = _low_pass(x, last, cutoff, dt)
    follow = (seen > 0.5) & (min_cutoff > 0)
    smoothed = torch.where(follow, smoothed, x)
    speed = torch.where(follow, speed, torch.zeros_like(speed))
    pieces = smoothed.split([part.numel() for part in parts], dim=1)
    calm = [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]
    return calm, torch.cat([torch.ones_like(seen), smoothed, speed], dim=1)


def _low_pass(x: Tensor, last: Tensor, cutoff: Tensor, dt: Tensor) -> Tensor:
    rate = 2 * math.pi * cutoff * dt
    return last + (x - last) * (rate / (rate + 1))
