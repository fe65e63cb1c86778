"""What the model itself computes, in torch and float32: what an export is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ....runtime.media.pixels import to_planes
from ..base import Image, Tensors
from ..one_euro import one_euro
from ..stage_modules import as_frame, normalised
from .keypoint_detector import Keypoints
from .model import AnimationModel, Source
from .transfer import CONTROLS, state_size, transfer_motion


class KeypointOracle:
    """See `Oracle`: the chain by the model's own methods."""

    def __init__(self, model: AnimationModel) -> None:
        self.model = model.eval()
        self.source_tensors: Tensors = {}

    @torch.no_grad()
    def set_source(self, image: Image, reference: Image) -> None:
        """Take source and reference, uint8 (S, S) or (S, S, 3); smoothing starts again."""
        self._source: Source = self.model.encode(normalised(_as_tensor(image)))
        self._reference = self._detect(reference)
        self._state = torch.zeros(1, state_size(self.model.keypoint_detector.count))
        self.source_tensors = {
            "source_image": to_planes(image),
            "source_small": self._source.small.numpy(),
            **_named("source", self._source.keypoints),
            "source_feature": self._source.feature.numpy(),
        }

    @torch.no_grad()
    def animate(self, frame: Image, controls: Mapping[str, float] = {}) -> Tensors:
        driving = self._detect(frame)
        values = {control.name: control.default for control in CONTROLS} | dict(controls or {})
        given = {name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()}
        trajectory = torch.cat([driving.value.flatten(1), driving.jacobian.flatten(1)], dim=1)
        smoothed, state = one_euro(
            trajectory, self._state, given["min_cutoff"], given["beta"], given["dt_seconds"]
        )
        value, jacobian = smoothed.split([driving.value.numel(), driving.jacobian.numel()], dim=1)
        calm = Keypoints(value.view_as(driving.value), jacobian.view_as(driving.jacobian))
        target = transfer_motion(
            self._source.keypoints, self._reference, calm, given["relative"], given["scale"]
        )
        prediction, motion = self.model.animate(self._source, target)
        tensors = {
            **self.source_tensors,
            **{name: value.numpy() for name, value in given.items()},
            **_named("reference", self._reference),
            **_named("driving", driving),
            **_named("target", target),
            "driving_frame": to_planes(frame),
            "state": self._state.numpy(),
            "next_state": state.numpy(),
            "deformation": motion.deformation.numpy(),
            "occlusion_map": motion.occlusion_map.numpy(),
            "frame": as_frame(prediction.image).numpy(),
        }
        self._state = state
        return tensors

    def _detect(self, frame: Image) -> Keypoints:
        keypoints: Keypoints = self.model.keypoint_detector(normalised(_as_tensor(frame)))
        return keypoints


def _as_tensor(image: Image) -> Tensor:
    return torch.from_numpy(to_planes(image))


def _named(who: str, keypoints: Keypoints) -> Tensors:
    return {
        f"{who}_kp_value": keypoints.value.numpy(),
        f"{who}_kp_jacobian": keypoints.jacobian.numpy(),
    }
