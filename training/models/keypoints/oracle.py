"""The keypoint model itself, in torch and float32: what an export is compared with."""

from __future__ import annotations

from torch import Tensor

from ..oracle import EagerOracle, Named
from ..stage_modules import as_frame
from .keypoint_detector import Keypoints
from .model import AnimationModel
from .transfer import CONTROLS, smooth_and_transfer, state_size


class KeypointOracle(EagerOracle):
    """See `Oracle`."""

    def __init__(self, model: AnimationModel) -> None:
        super().__init__(model, CONTROLS, state_size(model.config.keypoints.count))

    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.encode(source)
        self._reference = self.model.keypoint_detector(reference)
        return {
            "source_small": self._source.small,
            **_named("source", self._source.keypoints),
            "source_feature": self._source.feature,
            **_named("reference", self._reference),
        }

    def frame(self, driving: Tensor, given: Named, state: Tensor) -> Named:
        found = self.model.keypoint_detector(driving)
        target, next_state = smooth_and_transfer(
            self._source.keypoints, self._reference, found, *given.values(), state
        )
        prediction, motion = self.model.animate(self._source, target)
        return {
            **_named("driving", found),
            **_named("target", target),
            "next_state": next_state,
            **motion._asdict(),
            "frame": as_frame(prediction.image),
        }


def _named(who: str, keypoints: Keypoints) -> Named:
    return {f"{who}_kp_value": keypoints.value, f"{who}_kp_jacobian": keypoints.jacobian}
