"""Motion transfer and smoothing, tensors in and tensors out: the stage ``transfer``."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput
from ..geometry import inverse_2x2
from .keypoint_detector import Keypoints

DERIVATIVE_CUTOFF = 1.0  # Hz, as in the One-Euro paper
SHORTEST_STEP = 1e-4  # seconds


CONTROLS = (
    ControlInput("relative", 1.0, (0.0, 1.0), "", "1: relative motion, 0: absolute"),
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of relative motion"),
    ControlInput("min_cutoff", 0.0, (0.0, 1e6), "Hz", "One-Euro's cutoff at rest; 0: no smoothing"),
    ControlInput("beta", 0.0, (0.0, 1e6), "Hz s", "One-Euro's gain of the cutoff with speed"),
    ControlInput("dt_seconds", 1 / 30, (0.0, 1e9), "s", "time since the last frame"),
)


def state_size(keypoints: int) -> int:
    """Elements of the smoothing's state: "seen", 6 values per keypoint, their speeds."""
    return 1 + 2 * 6 * keypoints


def transfer_motion(
    source: Keypoints, reference: Keypoints, driving: Keypoints, relative: Tensor, scale: Tensor
) -> Keypoints:
    """Where the source's keypoints go.

    ``relative`` > 0.5: p = p_S + s (p_D - p_R), J = J_D J_R^-1 J_S (FOMM Eq. 11-12, with a scale);
    else the driving keypoints as they are.
    """
    value = source.value + scale * (driving.value - reference.value)
    change = multiply_2x2(driving.jacobian, inverse_2x2(reference.jacobian))
    jacobian = multiply_2x2(change, source.jacobian)
    follow = relative > 0.5
    return Keypoints(
        torch.where(follow, value, driving.value), torch.where(follow, jacobian, driving.jacobian)
    )


def multiply_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Product of (..., 2, 2) matrices by elements: a GPU's matrix unit would round to TF32."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def one_euro(
    x: Tensor, state: Tensor, min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor
) -> tuple[Tensor, Tensor]:
    """One-Euro filter of a trajectory: (1, n), (1, 1 + 2 n) -> smoothed (1, n), next state.

    Source: Casiez, Roussel and Vogel, CHI 2012. ``min_cutoff`` (Hz) <= 0 passes ``x`` on. A state
    of zeros is fresh.
    """
    n = x.shape[1]
    seen, last, last_speed = state.split([1, n, n], dim=1)
    dt = dt_seconds.clamp(min=SHORTEST_STEP)
    speed = _low_pass((x - last) / dt, last_speed, torch.full_like(dt, DERIVATIVE_CUTOFF), dt)
    cutoff = min_cutoff.clamp(min=0.0) + beta * speed.abs()
    smoothed = _low_pass(x, last, cutoff, dt)
    follow = (seen > 0.5) & (min_cutoff > 0)
    smoothed = torch.where(follow, smoothed, x)
    speed = torch.where(follow, speed, torch.zeros_like(speed))
    return smoothed, torch.cat([torch.ones_like(seen), smoothed, speed], dim=1)


def _low_pass(x: Tensor, last: Tensor, cutoff: Tensor, dt: Tensor) -> Tensor:
    rate = 2 * math.pi * cutoff * dt
    return last + (x - last) * (rate / (rate + 1))


class TransferStage(nn.Module):
    """The driving trajectory is smoothed, points and jacobians; then it is transferred."""

    def forward(
        self,
        source_kp_value: Tensor,
        source_kp_jacobian: Tensor,
        reference_kp_value: Tensor,
        reference_kp_jacobian: Tensor,
        driving_kp_value: Tensor,
        driving_kp_jacobian: Tensor,
        relative: Tensor,
        scale: Tensor,
        min_cutoff: Tensor,
        beta: Tensor,
        dt_seconds: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> target_kp_value, target_kp_jacobian, next_state. Shapes: see stages.py."""
        count = driving_kp_value.shape[1]
        trajectory = torch.cat([driving_kp_value.flatten(1), driving_kp_jacobian.flatten(1)], dim=1)
        smoothed, next_state = one_euro(trajectory, state, min_cutoff, beta, dt_seconds)
        value, jacobian = smoothed.split([2 * count, 4 * count], dim=1)
        driving = Keypoints(value.view(1, count, 2), jacobian.view(1, count, 2, 2))
        target = transfer_motion(
            Keypoints(source_kp_value, source_kp_jacobian),
            Keypoints(reference_kp_value, reference_kp_jacobian),
            driving, relative, scale,
        )  # fmt: skip
        return target.value, target.jacobian, next_state
