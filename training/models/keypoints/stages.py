"""The five stages, as functions of a rewritten model, and how motion is transferred.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput
from ..geometry import inverse_2x2
from ..one_euro import SMOOTHING_CONTROLS, one_euro
from ..stage_modules import Named, StagePlan, as_frame, named, normalised
from .dense_motion import Motion
from .keypoint_detector import Keypoints
from .model import AnimationModel
from .rewrite import folded, rewritten

CONTROLS = (
    ControlInput("relative", 1.0, (0.0, 1.0), "", "1: relative motion, 0: absolute"),
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of relative motion"),
    *SMOOTHING_CONTROLS,
)

MEANINGS = {
    "source_small": "source image x 0.25, in [0, 1]",
    "kp_value": "keypoints, (x, y) in [-1, 1]",
    "kp_jacobian": "jacobian of the motion around each keypoint",
    "source_feature": "encoded source, at a quarter of the size",
    "deformation": "for each pixel, where to read in the source, (x, y) in [-1, 1]",
    "occlusion_map": "share of the source that is seen, in [0, 1]",
}


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


def plans(model: AnimationModel, names: Sequence[str]) -> list[StagePlan]:
    """The stages of a copy of the model, rewritten where that pays."""
    fast = rewritten(model)
    return [
        StagePlan("source", "source", folded(model), source),
        StagePlan("keypoints", "observe", fast, keypoints),
        StagePlan("transfer", "frame", nn.Identity(), transfer),
        StagePlan("motion", "frame", fast, motion),
        StagePlan("generator", "frame", fast, generator),
    ]


def source(model: AnimationModel, source_image: Tensor) -> Named:
    small, found, feature = model.encode(normalised(source_image))
    return {"source_small": small, **named("source_kp", found), "source_feature": feature}


def keypoints(model: AnimationModel, driving_frame: Tensor) -> Named:
    return named("driving_kp", model.keypoint_detector(normalised(driving_frame)))


def transfer(
    _: nn.Module, source_kp_value: Tensor, source_kp_jacobian: Tensor, reference_kp_value: Tensor,
    reference_kp_jacobian: Tensor, driving_kp_value: Tensor, driving_kp_jacobian: Tensor,
    relative: Tensor, scale: Tensor, min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor,
    state: Tensor,
) -> Named:  # fmt: skip
    target, next_state = smooth_and_transfer(
        Keypoints(source_kp_value, source_kp_jacobian),
        Keypoints(reference_kp_value, reference_kp_jacobian),
        Keypoints(driving_kp_value, driving_kp_jacobian),
        relative, scale, min_cutoff, beta, dt_seconds, state,
    )  # fmt: skip
    return {**named("target_kp", target), "next_state": next_state}


def motion(
    model: AnimationModel, source_small: Tensor, source_kp_value: Tensor,
    source_kp_jacobian: Tensor, target_kp_value: Tensor, target_kp_jacobian: Tensor,
) -> Named:  # fmt: skip
    target = Keypoints(target_kp_value, target_kp_jacobian)
    start = Keypoints(source_kp_value, source_kp_jacobian)
    found: Motion = model.dense_motion(source_small, start, target)
    return found._asdict()


def generator(
    model: AnimationModel, source_feature: Tensor, deformation: Tensor, occlusion_map: Tensor
) -> Named:
    made = model.generator.decode(source_feature, Motion(deformation, occlusion_map))
    return {"frame": as_frame(made.image)}
