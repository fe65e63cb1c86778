"""Monkey-Net as a `Family`: its five stages, how motion is transferred, its oracle.

The wire carries a covariance where the first-order models have a jacobian.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from inspect import Parameter, Signature

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import KeypointControl
from ...config import ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Kind, Named, Oracle, StageFunction, as_frame, named, normalised
from ..keypoints.family import CONTROLS
from ..keypoints.rewrite import fold_batchnorm, phased
from ..keypoints.stages import keypoints
from ..one_euro import one_euro
from .model import Keypoints, MonkeyNet, Motion, lifted
from .objective import MonkeyNetObjective

MEANINGS = {
    "source_small": "source image x 0.25, in [0, 1]",
    "kp_value": "keypoints, (x, y) in [-1, 1]",
    "kp_covariance": "covariance of the blob around each keypoint",
    "deformation": "for each pixel, where to read in the source, (x, y) in [-1, 1]",
    "heatmap_difference": "heatmaps of target minus source keypoints, at a quarter of the size",
}


def source(model: MonkeyNet, source_image: Tensor) -> Named:
    small, found, skips = model.encode(normalised(source_image))
    numbered = {skip_name(i): skip for i, skip in enumerate(skips)}
    return {"source_small": small, **named("source_kp", found), **numbered}


def skip_name(index: int) -> str:
    """A skip's name on the wire; 0 is the image itself."""
    return f"source_skip{index}"


def transfer(
    _: nn.Module, source_kp_value: Tensor, reference_kp_value: Tensor, driving_kp_value: Tensor,
    driving_kp_covariance: Tensor, relative: Tensor, scale: Tensor, min_cutoff: Tensor,
    beta: Tensor, dt_seconds: Tensor, state: Tensor,
) -> Named:  # fmt: skip
    """Smooth the driving keypoints, then say where the source's go.

    ``relative`` > 0.5: p = p_S + s (p_D - p_R); the covariance stays the driver's, `lifted`.
    """
    driving = driving_kp_value, driving_kp_covariance
    (value, covariance), next_state = one_euro(driving, state, min_cutoff, beta, dt_seconds)
    moved = source_kp_value + scale * (value - reference_kp_value)
    target = Keypoints(torch.where(relative > 0.5, moved, value), lifted(covariance))
    return {**named("target_kp", target), "next_state": next_state}


def motion(
    model: MonkeyNet, source_small: Tensor, source_kp_value: Tensor, source_kp_covariance: Tensor,
    target_kp_value: Tensor, target_kp_covariance: Tensor,
) -> Named:  # fmt: skip
    start = Keypoints(source_kp_value, source_kp_covariance)
    target = Keypoints(target_kp_value, target_kp_covariance)
    found: Motion = model.dense_motion(source_small, start, target)
    return found._asdict()


def generator_stage(downs: int) -> Callable[..., Named]:
    """The stage of a model with so many downs, whose skips are inputs of their own."""

    def generator(model: MonkeyNet, *inputs: Tensor) -> Named:
        *skips, deformation, difference = inputs
        return {"frame": as_frame(model.generator.decode(skips, Motion(deformation, difference)))}

    skips = (skip_name(i) for i in range(downs + 1))
    names = ("model", *skips, "deformation", "heatmap_difference")
    kind = Parameter.POSITIONAL_OR_KEYWORD
    generator.__signature__ = Signature([Parameter(name, kind) for name in names])  # type: ignore[attr-defined]
    return generator


class MonkeyNetOracle(Oracle):
    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.encode(source)
        self._reference = self.model.keypoint_detector(reference)
        skips = {skip_name(i): skip for i, skip in enumerate(self._source.skips)}
        return {
            "source_small": self._source.small,
            **named("source_kp", self._source.keypoints),
            **named("reference_kp", self._reference),
            **skips,
        }

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        relative, scale, *smoothing = given
        found = self.model.keypoint_detector(driving)
        (value, covariance), next_state = one_euro(found, state, *smoothing)
        target = Keypoints(value, lifted(covariance))
        if relative > 0.5:
            step = target.value - self._reference.value
            target = target._replace(value=self._source.keypoints.value + scale * step)
        image, motion = self.model.animate(self._source, target)
        return {
            **named("driving_kp", found),
            **named("target_kp", target),
            "next_state": next_state,
            **motion._asdict(),
            "frame": as_frame(image),
        }


class MonkeyNetFamily(Family):
    model = MonkeyNet
    objective = MonkeyNetObjective
    eager = MonkeyNetOracle
    controls = CONTROLS
    label_hint = ""

    def __init__(self, config: ModelConfig) -> None:
        skips = {
            f"skip{i}": f"skip {i} of the generator" for i in range(config.generator.downs + 1)
        }
        self.meanings = {**MEANINGS, **skips}

    def labels(self, config: ModelConfig) -> int:
        return 0

    def judged_channels(self, config: ModelConfig) -> int:
        return config.channels + config.keypoints.count

    def columns(self, model: MonkeyNet, batch: PairBatch) -> Columns:
        still, driving = model.encode(batch.source), model.keypoint_detector(batch.driving)
        image, moved = model.animate(still, driving)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": moved.deformation,
            "prediction": image,
        }
        points = {"source": still.keypoints.value, "driving": driving.value}
        return Columns(images, points, {"keypoints": torch.cat(list(points.values()))})

    def control(self, config: ModelConfig, names: Sequence[str]) -> KeypointControl:
        return KeypointControl(config.keypoints.count, ())

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        # "seen", 6 values per keypoint, their speeds
        return {"state": (torch.float32, (1, 1 + 2 * 6 * config.keypoints.count))}

    def functions(self, model: MonkeyNet, names: Sequence[str]) -> list[StageFunction]:
        plain = copy.deepcopy(model).eval().requires_grad_(False)
        fold_batchnorm(plain)
        fast, size = copy.deepcopy(plain), model.config.image_size
        for hourglass in (fast.keypoint_detector.hourglass, fast.dense_motion.hourglass):
            phased(hourglass.ups, size // 4)
        phased(fast.generator.ups, size)
        return [
            StageFunction("source", plain, source),
            StageFunction("observe", fast, keypoints),
            StageFunction("frame", nn.Identity(), transfer),
            StageFunction("frame", fast, motion),
            StageFunction("frame", fast, generator_stage(model.config.generator.downs)),
        ]
