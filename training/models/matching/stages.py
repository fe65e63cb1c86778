"""The stages: thin wrappers, tensors in and tensors out, that leave the model alone.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are float32 whatever the precision; convolutions are of the precision asked for.
Each stage's forward names its inputs as the wire does (runtime/bundle/manifest.py).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS, ControlInput
from ...config import ModelConfig
from ..base import Precision, StageModule
from ..one_euro import SMOOTHING_CONTROLS, one_euro
from ..stage_modules import Kind, StagePlan, as_frame, make_stages, normalised
from .fields import judge
from .generator import CorrectingGenerator, Frame, SourceLayers
from .landmarks import LandmarkDetector
from .matcher import Descriptors, Encoder
from .model import MatchingModel
from .transfer import Passed, light, put

CONTROLS = (
    ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion"),
    ControlInput("shade", 1.0, (0.0, 1.0), "", "share of the shading that is passed on; 0: none"),
    *SMOOTHING_CONTROLS,
)


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
    """The match, as few numbers; smoothed, then read where the alignment says, then scaled."""

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
        moving = (found.displacement, found.shading)
        trajectory = torch.cat([x.reshape(1, -1) for x in moving], dim=1)
        smooth, next_state = one_euro(trajectory, state, min_cutoff, beta, dt_seconds)
        displacement, shading = (
            part.view_as(x)
            for part, x in zip(
                smooth.split([x.numel() for x in moving], dim=1), moving, strict=True
            )
        )
        calm = Passed(displacement, found.confidence, shading)
        return (*put(calm, alignment, scale, shade), next_state)


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
    "source_image": "source image, grey levels or RGB, letterboxed",
    "driving_frame": "driving frame, grey levels or RGB, letterboxed",
    "frame": "synthesized frame, grey levels or RGB",
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
    "state": "smoothing's state: seen, smoothed values, their speeds; zeros: fresh",
    "next_state": "smoothing's state after this frame",
    **{control.name: control.meaning for control in CONTROLS},
}

SEEN = ("fine", "coarse", "light")
SOURCE = ("source_feature", "source_low", "source_texture")


def build_stages(
    model: MatchingModel, precision: Precision = "fp32", landmarks: bool = False
) -> tuple[StageModule, ...]:
    """The stages of a model, which itself is left alone; with what finds its landmarks or not."""
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
    return make_stages(plans, _given(model.config, precision), MEANINGS, precision)


def state_size(config: ModelConfig) -> int:
    """Elements of the smoothing's state: "seen", displacement and shading, their speeds."""
    cells = 2 * config.matcher.grid**2 + max(1, config.matcher.shading) ** 2
    return 1 + 2 * cells


def _given(config: ModelConfig, precision: Precision) -> dict[str, Kind]:
    """What no stage makes."""
    size, grid, matcher = config.image_size, config.matcher.grid, config.matcher
    image = (torch.uint8, (1, config.channels, size, size))
    seen = torch.float16 if precision == "fp16" else torch.float32
    return {
        LANDMARK_IMAGE: image,
        "source_image": image,
        "driving_frame": image,
        "reference_fine": (seen, (1, matcher.fine, size // 4, size // 4)),
        "reference_coarse": (seen, (1, matcher.coarse, size // 8, size // 8)),
        "reference_light": (torch.float32, (1, 1, size // 4, size // 4)),
        "alignment": (torch.float32, (1, grid, grid, 2)),
        "state": (torch.float32, (1, state_size(config))),
        **{control.name: (torch.float32, (1,)) for control in CONTROLS},
    }
