"""The keypoint models as a `Family`, and their oracle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import ControlInput, KeypointControl, SupervisedKeypoint
from ...config import ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Kind, Named, Oracle, StageFunction, as_frame, named
from ..geometry import inverse_2x2
from ..one_euro import SMOOTHING_CONTROLS, one_euro
from . import background_stages, stages
from .model import AnimationModel
from .motion import Keypoints
from .objective import KeypointObjective
from .rewrite import folded, rewritten
from .stages import multiply_2x2

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
    "background": "[A b]: where the background reads in the source, A z + b",
    "small": "image x 0.25, in [0, 1]",
    "occlusion_map": "share of the source that is seen, in [0, 1]",
}


class KeypointOracle(Oracle):
    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.encode(source)
        self._reference = self.model.keypoint_detector(reference)
        self._before = self.model.down(reference)
        seen = {"reference_small": self._before} if self.model.background else {}
        return {
            "source_small": self._source.small,
            **named("source_kp", self._source.keypoints),
            "source_feature": self._source.feature,
            **named("reference_kp", self._reference),
            **seen,
        }

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        relative, scale, *smoothing = given
        start, first = self._source.keypoints, self._reference
        found = self.model.keypoint_detector(driving)
        follow, small = bool(relative > 0.5), self.model.down(driving)
        before = self._before if follow else self._source.small
        background = self.model.background_motion(before, small)
        (value, jacobian, *rest), next_state = one_euro(
            [*found, *([] if background is None else [background])], state, *smoothing
        )
        target = Keypoints(value, jacobian)
        if follow:
            change = multiply_2x2(target.jacobian, inverse_2x2(first.jacobian))
            value = start.value + scale * (target.value - first.value)
            target = Keypoints(value, multiply_2x2(change, start.jacobian))
            rest = [scale * each + (1 - scale) * torch.eye(2, 3) for each in rest]
        prediction, motion = self.model.animate(self._source, target, *rest)
        seen = {"driving_small": small, "background": rest[0]} if rest else {}
        return {
            **seen,
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
    label_hint = "--set model.keypoints.supervised={}, or correct a misspelt name in keypoints.csv"

    def labels(self, config: ModelConfig) -> int:
        return config.keypoints.supervised

    def columns(self, model: AnimationModel, batch: PairBatch) -> Columns:
        source, driving = model.encode(batch.source), model.keypoint_detector(batch.driving)
        background = model.background_motion(source.small, model.down(batch.driving))
        prediction, motion = model.animate(source, driving, background)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": motion.deformation,
            "occlusion": motion.occlusion_map,
            "content": prediction.content,
            "texture": prediction.texture + 0.5,  # it is around 0
            "prediction": prediction.image,
        }
        found = {"source": source.keypoints, "driving": driving}
        watched = {
            "keypoints": torch.cat([each.value for each in found.values()]),
            "jacobian": torch.cat([each.jacobian for each in found.values()]),
            "occlusion": motion.occlusion_map,
        }
        return Columns(images, {name: each.value for name, each in found.items()}, watched)

    def control(self, config: ModelConfig, names: Sequence[str]) -> KeypointControl:
        points = config.keypoints
        supervised = map(SupervisedKeypoint, count(points.self_supervised), names)
        return KeypointControl(points.count, tuple(supervised))

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        # "seen", 6 values per keypoint and, if it moves, of the background, their speeds
        moving = config.keypoints.count + (config.motion.background == "affine")
        return {"state": (torch.float32, (1, 1 + 2 * 6 * moving))}

    def functions(self, model: AnimationModel, names: Sequence[str]) -> list[StageFunction]:
        fast = rewritten(model)
        home = stages if model.background is None else background_stages
        return [
            StageFunction("source", folded(model), stages.source),
            StageFunction("observe", fast, home.keypoints),
            StageFunction("frame", fast if model.background else nn.Identity(), home.transfer),
            StageFunction("frame", fast, home.motion),
            StageFunction("frame", fast, stages.generator),
        ]
