"""What the model itself computes, in torch and float32: what an export is held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.frames import Image
from ..training.models.animator import AnimationModel, Source
from ..training.models.keypoint_detector import Keypoints
from .stages import as_frame, normalised
from .transfer import one_euro, state_size, transfer_motion

Array = NDArray[Any]
Tensors = dict[str, Array]


@dataclass(frozen=True)
class Control:
    """How one frame is animated: see runtime/wiring.py."""

    relative: float = 0.0
    scale: float = 1.0
    min_cutoff: float = 0.0
    beta: float = 0.0
    dt_seconds: float = 1 / 30

    def arrays(self) -> Tensors:
        return {name: np.array([value], np.float32) for name, value in vars(self).items()}


class TorchChain:
    """The chain of stages, by the model's own methods; nothing of the export's stages or rewrites.

    After :meth:`set_source`, each :meth:`animate` gives every tensor on the wire by its name.
    """

    def __init__(self, model: AnimationModel) -> None:
        self.model = model.eval()
        self.source_tensors: Tensors = {}

    @torch.no_grad()
    def set_source(self, image: Image, reference_frame: Image) -> None:
        """Take source and reference, uint8 (S, S) or (S, S, 3); smoothing begins anew."""
        self._source: Source = self.model.encode(normalised(as_tensor(image)))
        self._reference = self._detect(reference_frame)
        self._state = torch.zeros(1, state_size(self.model.keypoint_detector.count))
        names = [f"source_{name}" for name in self.model.generator.feature_names]
        self.source_tensors = {
            "source_image": as_array(image),
            "source_small": self._source.small.numpy(),
            **_named("source", self._source.keypoints),
            **{name: f.numpy() for name, f in zip(names, self._source.features, strict=True)},
        }

    @torch.no_grad()
    def animate(self, frame: Image, control: Control) -> Tensors:
        """Every tensor of one frame, those of the source among them."""
        driving = self._detect(frame)
        given = {name: torch.from_numpy(value) for name, value in control.arrays().items()}
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
            **control.arrays(),
            **_named("reference", self._reference),
            **_named("driving", driving),
            **_named("target", target),
            "driving_frame": as_array(frame),
            "state": self._state.numpy(),
            "next_state": state.numpy(),
            "deformation": motion.deformation.numpy(),
            "occlusion_map": motion.occlusion_map.numpy(),
            "frame": as_frame(prediction.image).numpy(),
        }
        self._state = state
        return tensors

    def _detect(self, frame: Image) -> Keypoints:
        keypoints: Keypoints = self.model.keypoint_detector(normalised(as_tensor(frame)))
        return keypoints


def as_array(image: Image) -> Array:
    """uint8 (S, S) or (S, S, 3) -> (1, C, S, S), contiguous."""
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None])


def as_tensor(image: Image) -> Tensor:
    """The same as a tensor."""
    return torch.from_numpy(as_array(image))


def as_image(array: Array) -> Image:
    """The reverse: uint8 (1, C, S, S) -> (S, S) or (S, S, 3)."""
    return np.ascontiguousarray(array[0, 0] if array.shape[1] == 1 else array[0].transpose(1, 2, 0))


def _named(who: str, keypoints: Keypoints) -> Tensors:
    return {
        f"{who}_kp_value": keypoints.value.numpy(),
        f"{who}_kp_jacobian": keypoints.jacobian.numpy(),
    }
