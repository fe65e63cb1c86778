"""The keypoint models as a `Family`: their five stages, how motion is transferred, their oracle.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput, KeypointControl, SupervisedKeypoint
from ...config import ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Kind, Named, Oracle, StageFunction, as_frame, named, normalised
from ..geometry import inverse_2x2
from ..one_euro import SMOOTHING_CONTROLS, one_euro
from .model import AnimationModel
from .motion import Keypoints, Motion
from .objective import KeypointObjective
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


def multiply_2x2(a: Tensor, b: Tensor) -> Tensor:
    """Product of (..., 2, 2) matrices by elements: a GPU's matrix unit would round to TF32."""
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


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
    """Smooth the driving keypoints, then say where the source's go.

    ``relative`` > 0.5: p = p_S + s (p_D - p_R), J = J_D J_R^-1 J_S (FOMM Eq. 11-12, with a scale);
    else the driving keypoints as they are.
    """
    driving = driving_kp_value, driving_kp_jacobian
    (value, jacobian), next_state = one_euro(driving, state, min_cutoff, beta, dt_seconds)
    moved = source_kp_value + scale * (value - reference_kp_value)
    change = multiply_2x2(jacobian, inverse_2x2(reference_kp_jacobian))
    turned = multiply_2x2(change, source_kp_jacobian)
    follow = relative > 0.5
    target = Keypoints(torch.where(follow, moved, value), torch.where(follow, turned, jacobian))
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


class KeypointOracle(Oracle):
    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.encode(source)
        self._reference = self.model.keypoint_detector(reference)
        return {
            "source_small": self._source.small,
            **named("source_kp", self._source.keypoints),
            "source_feature": self._source.feature,
            **named("reference_kp", self._reference),
        }

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        relative, scale, *smoothing = given
        start, first = self._source.keypoints, self._reference
        found = self.model.keypoint_detector(driving)
        calm, next_state = one_euro(found, state, *smoothing)
        target = Keypoints(*calm)
        if relative > 0.5:
            change = multiply_2x2(target.jacobian, inverse_2x2(first.jacobian))
            value = start.value + scale * (target.value - first.value)
            target = Keypoints(value, multiply_2x2(change, start.jacobian))
        prediction, motion = self.model.animate(self._source, target)
        return {
            **named("driving_kp", found),
            **named("target_kp", target),
            "next_state": next_state,
            **motion._asdict(),
            "frame": as_frame(prediction.image),
        }


class KeypointFamily(Family):
    model = AnimationModel
    objective = KeypointObjective
    eager = KeypointOracle
    controls = CONTROLS
    meanings = MEANINGS
    label_hint = "--set model.keypoints.supervised={}"

    def labels(self, config: ModelConfig) -> int:
        return config.keypoints.supervised

    def columns(self, model: AnimationModel, batch: PairBatch) -> Columns:
        source, driving = model.encode(batch.source), model.keypoint_detector(batch.driving)
        prediction, motion = model.animate(source, driving)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": motion.deformation,
            "occlusion": motion.occlusion_map,
            "content": prediction.content,
            "texture": prediction.texture + 0.5,  # it is around 0
            "prediction": prediction.image,
        }
        return Columns(images, {"source": source.keypoints.value, "driving": driving.value})

    def control(self, config: ModelConfig, names: Sequence[str]) -> KeypointControl:
        points = config.keypoints
        supervised = map(SupervisedKeypoint, count(points.self_supervised), names)
        return KeypointControl(points.count, tuple(supervised))

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        # "seen", 6 values per keypoint, their speeds
        return {"state": (torch.float32, (1, 1 + 2 * 6 * config.keypoints.count))}

    def functions(self, model: AnimationModel, names: Sequence[str]) -> list[StageFunction]:
        fast = rewritten(model)
        return [
            StageFunction("source", folded(model), source),
            StageFunction("observe", fast, keypoints),
            StageFunction("frame", nn.Identity(), transfer),
            StageFunction("frame", fast, motion),
            StageFunction("frame", fast, generator),
        ]
