"""The stages of a keypoint model whose background moves, where they differ from those of stages.py.

The background's map needs two pictures. Relative motion compares the driving frame with the
reference frame, absolute motion with the source, as in training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import Named, named, normalised
from ..one_euro import one_euro
from . import stages
from .model import AnimationModel
from .motion import Keypoints, Motion


def keypoints(model: AnimationModel, driving_frame: Tensor) -> Named:
    image = normalised(driving_frame)
    found = named("driving_kp", model.keypoint_detector(image))
    return {**found, "driving_small": model.down(image)}


def transfer(
    model: AnimationModel, source_kp_value: Tensor, source_kp_jacobian: Tensor,
    source_small: Tensor, reference_kp_value: Tensor, reference_kp_jacobian: Tensor,
    reference_small: Tensor, driving_kp_value: Tensor, driving_kp_jacobian: Tensor,
    driving_small: Tensor, relative: Tensor, scale: Tensor, min_cutoff: Tensor, beta: Tensor,
    dt_seconds: Tensor, state: Tensor,
) -> Named:  # fmt: skip
    """As in stages.py; and of the background's map [A b] the step from the identity, times
    ``scale`` where the motion is relative. It is smoothed with the keypoints."""
    before = torch.where(relative > 0.5, reference_small, source_small)
    background = model.background_motion(before, driving_small)
    driving = driving_kp_value, driving_kp_jacobian, background
    smoothing = min_cutoff, beta, dt_seconds
    (value, jacobian, background), next_state = one_euro(driving, state, *smoothing)
    moved = stages.moved(
        Keypoints(source_kp_value, source_kp_jacobian),
        Keypoints(reference_kp_value, reference_kp_jacobian),
        Keypoints(value, jacobian),
        relative,
        scale,
    )
    rest = torch.eye(2, 3)[None]
    part = torch.where(relative > 0.5, scale, torch.ones_like(scale))
    background = rest + part * (background - rest)
    return {**named("target_kp", moved), "background": background, "next_state": next_state}


def motion(
    model: AnimationModel, source_small: Tensor, source_kp_value: Tensor,
    source_kp_jacobian: Tensor, target_kp_value: Tensor, target_kp_jacobian: Tensor,
    background: Tensor,
) -> Named:  # fmt: skip
    target = Keypoints(target_kp_value, target_kp_jacobian)
    start = Keypoints(source_kp_value, source_kp_jacobian)
    found: Motion = model.dense_motion(source_small, start, target, background)
    return found._asdict()
