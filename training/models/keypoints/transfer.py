"""Motion transfer and smoothing, tensors in and tensors out: the stage ``transfer``."""

from __future__ import annotations

import torch
from torch import Tensor

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


def smooth_and_transfer(
    source: Keypoints, reference: Keypoints, driving: Keypoints, relative: Tensor, scale: Tensor,
    min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor, state: Tensor,
) -> tuple[Keypoints, Tensor]:  # fmt: skip
    """Smooth the driving keypoints, then transfer their motion; also the next state."""
    calm, next_state = one_euro(driving, state, min_cutoff, beta, dt_seconds)
    return transfer_motion(source, reference, Keypoints(*calm), relative, scale), next_state
