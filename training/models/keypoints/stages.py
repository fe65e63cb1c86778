"""The stages that export writes of a keypoint model: functions of the model and of tensors.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..base import Named, as_frame, named, normalised
from ..geometry import inverse_2x2
from ..one_euro import one_euro
from .model import AnimationModel
from .motion import Keypoints, Motion


def multiply_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Product of (..., 2, 2) matrices by elements: a GPU's matrix unit would round to TF32."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def source(model: AnimationModel, source_image: Tensor) -> Named:
    small, found, feature = model.encode(normalised(source_image))
    return {"source_small": small, **named("source_kp", found), "source_feature": feature}


def keypoints(model: Any, driving_frame: Tensor) -> Named:
    """Of any model with a `keypoint_detector`."""
    return named("driving_kp", model.keypoint_detector(normalised(driving_frame)))


def transfer(
    _: nn.Module, source_kp_value: Tensor, source_kp_jacobian: Tensor, reference_kp_value: Tensor,
    reference_kp_jacobian: Tensor, driving_kp_value: Tensor, driving_kp_jacobian: Tensor,
    relative: Tensor, scale: Tensor, min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor,
    state: Tensor,
) -> Named:  # fmt: skip
    """Smooth the driving keypoints, then say where the source's go.

    ``relative`` > 0.5: p = p_S + s (p_D - p_R), J = J_D J_R^-1 J_S (FOMM Eq. 11-12, with a scale);
    else the driving keypoints as they are.
    """
    driving = driving_kp_value, driving_kp_jacobian
    calm, next_state = one_euro(driving, state, min_cutoff, beta, dt_seconds)
    source = Keypoints(source_kp_value, source_kp_jacobian)
    reference = Keypoints(reference_kp_value, reference_kp_jacobian)
    target = moved(source, reference, Keypoints(*calm), relative, scale)
    return {**named("target_kp", target), "next_state": next_state}


def moved(
    source: Keypoints, reference: Keypoints, driving: Keypoints, relative: Tensor, scale: Tensor
) -> Keypoints:
    """Where the source's keypoints go."""
    value = source.value + scale * (driving.value - reference.value)
    change = multiply_2x2(driving.jacobian, inverse_2x2(reference.jacobian))
    target = Keypoints(value, multiply_2x2(change, source.jacobian))
    follow = relative > 0.5
    both = zip(target, driving, strict=True)
    return Keypoints(*(torch.where(follow, there, own) for there, own in both))


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
