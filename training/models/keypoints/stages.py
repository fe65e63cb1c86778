"""The five stages, as functions of a rewritten model.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..stage_modules import Named, StagePlan, as_frame, named, normalised
from .dense_motion import Motion
from .keypoint_detector import Keypoints
from .model import AnimationModel
from .rewrite import folded, rewritten
from .transfer import smooth_and_transfer

MEANINGS = {
    "source_small": "source image x 0.25, in [0, 1]",
    "kp_value": "keypoints, (x, y) in [-1, 1]",
    "kp_jacobian": "jacobian of the motion around each keypoint",
    "source_feature": "encoded source, at a quarter of the size",
    "deformation": "for each pixel, where to read in the source, (x, y) in [-1, 1]",
    "occlusion_map": "share of the source that is seen, in [0, 1]",
}


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
