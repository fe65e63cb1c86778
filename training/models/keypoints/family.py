"""The keypoint models as a `Family`."""

from __future__ import annotations

from collections.abc import Sequence

from ....runtime.bundle.manifest import ImageFormat, KeypointControl, Recurrent, SupervisedKeypoint
from ....runtime.support.errors import ConfigError
from ...config import Config, ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, ModuleChain, Precision
from .model import AnimationModel
from .objective import KeypointObjective
from .oracle import KeypointOracle
from .stages import build_stages
from .transfer import CONTROLS


class KeypointFamily:
    """See `Family`."""

    label_network = ""
    model = AnimationModel
    objective = KeypointObjective
    oracle = KeypointOracle

    def labels(self, config: ModelConfig) -> int:
        return config.keypoints.supervised

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        return config

    def check_labels(self, config: ModelConfig, names: Sequence[str]) -> None:
        learned = self.labels(config)
        if names and len(names) != learned:
            raise ConfigError(
                f"the data labels {len(names)} keypoints ({', '.join(names)}), the model has "
                f"{learned} supervised ones",
                f"--set model.keypoints.supervised={len(names)}",
            )

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

    def chain(
        self, model: AnimationModel, precision: Precision = "fp32", names: Sequence[str] = ()
    ) -> ModuleChain:
        config = model.config
        points = config.keypoints
        supervised = (
            SupervisedKeypoint(points.self_supervised + i, name)
            for i, name in enumerate(names[: points.supervised])
        )
        return ModuleChain(
            image=ImageFormat(config.image_size, 3 if config.channels == 3 else 1),
            geometry=config.geometry,
            control=KeypointControl(points.count, tuple(supervised)),
            controls=CONTROLS,
            stages=build_stages(model, precision),
            recurrent=(Recurrent("next_state", "state"),),
        )
