"""The stages: thin wrappers around the model, tensors in and tensors out.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision. The inputs of a
stage's forward are named as on the wire (runtime/bundle/manifest.py).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS
from ...config import ModelConfig
from ..base import Precision, StageModule
from ..stage_modules import Kind, StagePlan, as_frame, common_inputs, make_stages, normalised
from .fields import judge
from .generator import CorrectingGenerator, Frame, SourceLayers
from .landmarks import LandmarkDetector
from .matcher import Descriptors, Encoder
from .model import MatchingModel
from .transfer import CONTROLS, Passed, light, smooth_and_put, state_size


class LandmarksStage(nn.Module):
    def __init__(self, detector: LandmarkDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, landmark_image: Tensor) -> Tensor:
        """-> landmarks."""
        return self.detector.located(normalised(landmark_image))


class SourceStage(nn.Module):
    def __init__(self, generator: CorrectingGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, source_image: Tensor) -> tuple[Tensor, ...]:
        """-> source_feature, source_low, source_texture."""
        return tuple(self.generator.encode(normalised(source_image)))


class ObserveStage(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, driving_frame: Tensor) -> tuple[Tensor, ...]:
        """-> driving_fine, driving_coarse, driving_light."""
        image = normalised(driving_frame)
        return (*self.encoder(image), light(image))


class TransferStage(nn.Module):
    """The match reduced to few numbers, smoothed, aligned, scaled."""

    def __init__(self, model: MatchingModel) -> None:
        super().__init__()
        self.matcher, self.passing = model.matcher, model.passing
        del self.matcher.encoder

    def forward(
        self, reference_fine: Tensor, reference_coarse: Tensor, reference_light: Tensor,
        driving_fine: Tensor, driving_coarse: Tensor, driving_light: Tensor,
        alignment: Tensor, scale: Tensor, shade: Tensor,
        min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor, state: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """-> displacement, confidence, shading, next_state."""
        driving = Descriptors(driving_fine, driving_coarse)
        match = self.matcher(driving, Descriptors(reference_fine, reference_coarse))
        found: Passed = self.passing(match, driving_light, reference_light)
        passed, next_state = smooth_and_put(
            found, alignment, scale, shade, min_cutoff, beta, dt_seconds, state
        )
        return (*passed, next_state)


class MotionStage(nn.Module):
    def __init__(self, model: MatchingModel) -> None:
        super().__init__()
        self.spline, self.stiff_spline = model.spline, model.stiff_spline

    def forward(self, displacement: Tensor, confidence: Tensor) -> tuple[Tensor, ...]:
        """-> deformation, stiff, quality."""
        deformation = self.spline(displacement)
        quality = torch.stack(judge(displacement, confidence, deformation), dim=1)
        return deformation, self.stiff_spline(displacement), quality


class GeneratorStage(nn.Module):
    def __init__(self, generator: CorrectingGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self, source_feature: Tensor, source_low: Tensor, source_texture: Tensor,
        deformation: Tensor, stiff: Tensor, displacement: Tensor, confidence: Tensor,
        shading: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """-> frame, gain, offset, gate."""
        source = SourceLayers(source_feature, source_low, source_texture)
        frame: Frame = self.generator(source, deformation, stiff, displacement, confidence, shading)
        return (as_frame(frame.image()), *frame.layers)


MEANINGS = {
    "landmark_image": "source image or reference frame, grey levels or RGB, letterboxed",
    "landmarks": "(x, y) in points, and the probability that the landmark is there",
    "source_feature": "encoded source, at a quarter of the size",
    "source_low": "low-pass of the source, at 3/2 of the size",
    "source_texture": "what the low-pass leaves of the source, at three times the size",
    "fine": "descriptors, at a quarter of the size",
    "coarse": "descriptors, at an eighth of the size",
    "light": "frame's mean level, at a quarter of the size, in [0, 1]",
    "alignment": "for each cell of the source, where in the reference its motion is read, (x, y)",
    "displacement": "for each cell, how far away the source is read, (x, y) in points",
    "confidence": "how sure the displacement is, in [0, 1]",
    "shading": "log of a factor of a grey level's odds",
    "deformation": "for each pixel, where to read the source's low-pass, (x, y) in [-1, 1]",
    "stiff": "for each pixel, where to read the source's texture, (x, y) in [-1, 1]",
    "quality": "mean confidence, longest displacement, shares folded and unseen",
    "gain": "layer: factor of the low-pass",
    "offset": "layer: added to the low-pass",
    "gate": "layer: factor of the texture",
}

SEEN = ("fine", "coarse", "light")
SOURCE = ("source_feature", "source_low", "source_texture")


def build_stages(
    model: MatchingModel, precision: Precision = "fp32", landmarks: bool = False
) -> tuple[StageModule, ...]:
    """The stages of a copy of the model, with or without the one that finds landmarks."""
    plain = copy.deepcopy(model)
    driving, reference = (tuple(f"{who}_{x}" for x in SEEN) for who in ("driving", "reference"))
    passed = ("displacement", "confidence", "shading")
    controls = tuple(control.name for control in CONTROLS)
    plans = [
        StagePlan("source", "source", SourceStage(plain.generator), ("source_image",), SOURCE),
        StagePlan(
            "observe", "observe", ObserveStage(plain.matcher.encoder), ("driving_frame",), driving
        ),
        StagePlan(
            "transfer", "frame", TransferStage(plain),
            (*reference, *driving, "alignment", *controls, "state"), (*passed, "next_state"),
        ),
        StagePlan(
            "motion", "frame", MotionStage(plain),
            ("displacement", "confidence"), ("deformation", "stiff", "quality"),
        ),
        StagePlan(
            "generator", "frame", GeneratorStage(copy.deepcopy(plain.generator)),
            (*SOURCE, "deformation", "stiff", *passed), ("frame", "gain", "offset", "gate"),
        ),
    ]  # fmt: skip
    if landmarks:
        assert plain.landmarks is not None
        stage = LandmarksStage(plain.landmarks)
        plans.insert(0, StagePlan("landmarks", "landmarks", stage, (LANDMARK_IMAGE,), (LANDMARKS,)))
    return make_stages(plans, _given(model.config, precision), MEANINGS, CONTROLS, precision)


def _given(config: ModelConfig, precision: Precision) -> dict[str, Kind]:
    """What no stage makes."""
    size, grid, matcher = config.image_size, config.matcher.grid, config.matcher
    seen = torch.float16 if precision == "fp16" else torch.float32
    common = common_inputs(config, CONTROLS, state_size(config))
    return common | {
        LANDMARK_IMAGE: common["source_image"],
        "reference_fine": (seen, (1, matcher.fine, size // 4, size // 4)),
        "reference_coarse": (seen, (1, matcher.coarse, size // 8, size // 8)),
        "reference_light": (torch.float32, (1, 1, size // 4, size // 4)),
        "alignment": (torch.float32, (1, grid, grid, 2)),
    }
