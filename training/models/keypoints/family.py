"""The keypoint models as a `Family`, and as their own oracle."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....runtime.bundle.manifest import KeypointControl, SupervisedKeypoint
from ...config import ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Oracle
from ..stage_modules import Kind, Named, as_frame, named
from . import stages
from .model import AnimationModel
from .objective import KeypointObjective


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
        found = self.model.keypoint_detector(driving)
        target, next_state = stages.smooth_and_transfer(
            self._source.keypoints, self._reference, found, *given, state
        )
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
    controls = stages.CONTROLS
    plans = staticmethod(stages.plans)
    meanings = stages.MEANINGS
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
        supervised = enumerate(names, points.self_supervised)
        return KeypointControl(
            points.count, tuple(SupervisedKeypoint(*each) for each in supervised)
        )

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        return {"state": (torch.float32, (1, stages.state_size(config.keypoints.count)))}
