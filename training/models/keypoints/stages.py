"""The five stages: thin wrappers around a rewritten model, tensors in and tensors out.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision. The inputs of a
stage's forward are named as on the wire (runtime/bundle/manifest.py).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...config import ModelConfig
from .. import operators
from ..base import Precision, StageModule
from ..geometry import make_grid
from ..stage_modules import Kind, StagePlan, as_frame, common_inputs, make_stages, normalised
from . import operators as motion_operators
from .dense_motion import DenseMotion
from .generator import Generator
from .keypoint_detector import KeypointDetector, Keypoints
from .model import AnimationModel
from .rewrite import folded, merged, rewritten, with_more_inputs
from .transfer import CONTROLS, TransferStage, state_size

# ONNX Runtime's fast convolutions want input channels in multiples of four.
CHANNEL_MULTIPLE = 4


class Detector(nn.Module):
    """The keypoint detector with its two heads as one convolution."""

    def __init__(self, detector: KeypointDetector) -> None:
        super().__init__()
        self.count, self.temperature = detector.count, detector.temperature
        self.down, self.hourglass = detector.down, detector.hourglass
        self.geometry = detector.geometry
        self.heads = merged(detector.heatmap, detector.jacobian)

    def forward(self, image: Tensor) -> Keypoints:
        """float32 (1, C, S, S) in [0, 1] -> keypoints, float32."""
        small = self.down(image).to(self.heads.weight.dtype)
        maps = self.heads(self.hourglass(small)).float()
        count = self.count
        height, width = maps.shape[-2:]
        grid = (
            make_grid(height, width, self.geometry, maps.device)
            .permute(2, 0, 1)
            .reshape(1, 1, 2, height * width)
        )
        flat = maps.view(1, 5 * count, height * width)
        heatmap = (flat[:, :count] / self.temperature).softmax(dim=-1)[:, :, None]
        # Sums of products rather than a matrix product, which a GPU may compute in TF32.
        value = (heatmap * grid).sum(-1)
        jacobian = (heatmap * flat[:, count:].view(1, count, 4, height * width)).sum(-1)
        return Keypoints(value, jacobian.view(1, count, 2, 2))


class SourceStage(nn.Module):
    def __init__(self, model: AnimationModel) -> None:
        super().__init__()
        self.down, self.generator = model.down, model.generator
        self.detector = Detector(model.keypoint_detector)

    def forward(self, source_image: Tensor) -> tuple[Tensor, ...]:
        """-> source_small, source_kp_value, source_kp_jacobian, then the generator's feature."""
        image = normalised(source_image)
        keypoints = self.detector(image)
        return (self.down(image), *keypoints, self.generator.encode(image))


class KeypointsStage(nn.Module):
    def __init__(self, detector: KeypointDetector) -> None:
        super().__init__()
        self.detector = Detector(detector)

    def forward(self, driving_frame: Tensor) -> tuple[Tensor, Tensor]:
        """-> driving_kp_value, driving_kp_jacobian."""
        keypoints: Keypoints = self.detector(normalised(driving_frame))
        return keypoints.value, keypoints.jacobian


class MotionStage(nn.Module):
    def __init__(self, motion: DenseMotion) -> None:
        super().__init__()
        self.geometry, self.variance = motion.geometry, motion.variance
        self.slots = motion.mask.out_channels
        first = motion.hourglass.downs[0].conv
        self.added = -first.in_channels % CHANNEL_MULTIPLE
        motion.hourglass.downs[0].conv = with_more_inputs(first, self.added)
        self.hourglass = motion.hourglass
        # The hourglass appends its own input to its result, so the channels added come last.
        self.heads = with_more_inputs(merged(motion.mask, motion.occlusion), self.added)

    def forward(
        self, source_small: Tensor, source_kp_value: Tensor, source_kp_jacobian: Tensor,
        target_kp_value: Tensor, target_kp_jacobian: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """-> deformation, occlusion_map."""
        source = Keypoints(source_kp_value, source_kp_jacobian)
        target = Keypoints(target_kp_value, target_kp_jacobian)
        sparse = motion_operators.sparse_motion(
            source_small, source, target, self.variance, self.geometry
        )
        if self.added:
            sparse = torch.cat([sparse, torch.zeros_like(sparse[:, : self.added])], dim=1)
        maps = self.heads(self.hourglass(sparse.to(self.heads.weight.dtype))).float()
        mask_logits, occlusion = maps[:, : self.slots], maps[:, self.slots :]
        deformation = motion_operators.compose_motion(mask_logits, source, target, self.geometry)
        return deformation, torch.sigmoid(occlusion)


class GeneratorStage(nn.Module):
    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator, self.geometry = generator, generator.geometry

    def forward(self, source_feature: Tensor, deformation: Tensor, occlusion_map: Tensor) -> Tensor:
        """-> frame."""
        warped = operators.warp_occlude(source_feature, deformation, occlusion_map, self.geometry)
        return as_frame(self.generator.decode_warped(warped).image)


MEANINGS = {
    "source_small": "source image x 0.25, in [0, 1]",
    "kp_value": "keypoints, (x, y) in [-1, 1]",
    "kp_jacobian": "jacobian of the motion around each keypoint",
    "source_feature": "encoded source, at a quarter of the size",
    "deformation": "for each pixel, where to read in the source, (x, y) in [-1, 1]",
    "occlusion_map": "share of the source that is seen, in [0, 1]",
}


def _keypoints(who: str) -> tuple[str, str]:
    return f"{who}_kp_value", f"{who}_kp_jacobian"


def build_stages(model: AnimationModel, precision: Precision = "fp32") -> tuple[StageModule, ...]:
    """The stages of a copy of the model, rewritten where that pays."""
    config = model.config
    once, fast = folded(model), rewritten(model)
    source, reference, driving, target = map(
        _keypoints, ("source", "reference", "driving", "target")
    )
    maps = ("deformation", "occlusion_map")
    controls = tuple(control.name for control in CONTROLS)
    plans = [
        StagePlan(
            "source", "source", SourceStage(once),
            ("source_image",), ("source_small", *source, "source_feature"),
        ),
        StagePlan(
            "keypoints", "observe", KeypointsStage(fast.keypoint_detector),
            ("driving_frame",), driving,
        ),
        StagePlan(
            "transfer", "frame", TransferStage(),
            (*source, *reference, *driving, *controls, "state"), (*target, "next_state"),
        ),
        StagePlan(
            "motion", "frame", MotionStage(fast.dense_motion),
            ("source_small", *source, *target), maps,
        ),
        StagePlan(
            "generator", "frame", GeneratorStage(fast.generator),
            ("source_feature", *maps), ("frame",),
        ),
    ]  # fmt: skip
    return make_stages(plans, _given(config), MEANINGS, CONTROLS, precision)


def _given(config: ModelConfig) -> dict[str, Kind]:
    """What no stage makes."""
    count = config.keypoints.count
    value, jacobian = _keypoints("reference")
    return common_inputs(config, CONTROLS, state_size(count)) | {
        value: (torch.float32, (1, count, 2)),
        jacobian: (torch.float32, (1, count, 2, 2)),
    }
