"""Motion transfer and smoothing, tensors in and tensors out: the stage ``transfer``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput
from ..geometry import inverse_2x2
from ..one_euro import SMOOTHING_CONTROLS, one_euro
from .keypoint_detector import Keypoints

CONTROLS = (
    ControlInput("relative", 1.0, (0.0, 1.0), "", "1: relative motion, 0: absolute"),
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of relative motion"),
    *SMOOTHING_CONTROLS,
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
