"""The stages, still in torch, against the model's own methods: every preset of keypoints, small."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from lively import SMALL, lively_checkpoint, speckle
from torch import nn

from sonomime.training.models.base import StageModule
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.models.keypoints.oracle import KeypointOracle
from sonomime.training.models.keypoints.rewrite import PhaseConv, folded, rewritten
from sonomime.training.models.keypoints.stages import build_stages
from sonomime.training.models.stage_modules import as_frame, normalised

ABSOLUTE = {"relative": 0.0}
SMOOTH = {"min_cutoff": 1.5, "beta": 10.0}

FOMM = ("model.geometry=fomm", "model.channels=3")
SPLIT = ("model.generator.bottleneck=split", "model.generator.fusion=logit")
VARIANTS = [
    *((preset, ()) for preset in ("fomm", "ours-p", "ours-pt", "ours-ptg")),
    ("fomm", FOMM),
    ("ours-ptg", SPLIT),
    ("ours-ptg", ("model.generator.upsample=bilinear",)),
    ("ours-ptg", ("model.generator.downs=3",)),
    ("ours-pt", ("model.channels=3",)),
]


def small_model(preset: str, overrides: Sequence[str] = ()) -> AnimationModel:
    return lively_checkpoint(preset, (*SMALL, *overrides)).model()


def compare(model: AnimationModel, stages: Sequence[StageModule], size: int, channels: int) -> None:
    """Every stage on the model's own tensors, for two frames."""
    chain = KeypointOracle(model)
    frames = [speckle(size, channels, seed) for seed in range(3)]
    chain.set_source(frames[0], frames[1])
    for frame, control in zip(frames[1:], (ABSOLUTE, SMOOTH), strict=True):
        tensors = chain.animate(frame, control)
        for stage in stages:
            inputs = [torch.from_numpy(tensors[tensor.name]) for tensor in stage.inputs]
            with torch.no_grad():
                results = stage.module(*inputs)
            results = [results] if isinstance(results, torch.Tensor) else results
            for tensor, result in zip(stage.outputs, results, strict=True):
                wanted = tensors[tensor.name]
                assert tensor.shape == tuple(result.shape) == wanted.shape, tensor.name
                assert tensor.dtype == str(result.dtype)[6:] == wanted.dtype.name, tensor.name
                found = result.numpy().astype(np.float64)
                bound = 1 if tensor.name == "frame" else 1e-4 * max(1, np.abs(wanted).max())
                assert np.abs(found - wanted).max() <= bound, (stage.name, tensor.name)


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
def test_stages_compute_what_the_model_does(preset: str, overrides: Sequence[str]) -> None:
    model = small_model(preset, overrides)
    compare(model, build_stages(model), 128, model.config.channels)


def test_no_stage_but_keypoints_takes_driving_pixels() -> None:
    for stage in build_stages(small_model("ours-ptg")):
        takes = {t.name for t in stage.inputs if t.dtype == "uint8"}
        assert takes == {"keypoints": {"driving_frame"}, "source": {"source_image"}}.get(
            stage.name, set()
        )


@pytest.mark.parametrize("preset", ["ours-ptg", "fomm"])
def test_half_precision_is_for_convolutions_and_features(preset: str) -> None:
    stages = build_stages(small_model(preset), "fp16")
    kinds = {t.name: t.dtype for stage in stages for t in (*stage.inputs, *stage.outputs)}
    half = {name for name, dtype in kinds.items() if dtype == "float16"}
    assert half == {"source_feature"}
    for stage in stages:
        for module in stage.module.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                assert module.weight.dtype == torch.float16
            else:
                assert all(x.dtype == torch.float32 for x in module.buffers(recurse=False))


def test_the_model_is_left_alone() -> None:
    model = small_model("ours-pt")
    before = copy.deepcopy(model.state_dict())
    build_stages(model, "fp16")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_rewrites_reach_their_layers() -> None:
    def split(module: nn.Module) -> int:
        return sum(isinstance(part, PhaseConv) for part in module.modules())

    large = lively_checkpoint("ours-ptg", [*SMALL, "model.image_size=256"]).model()
    fast = rewritten(large)
    # Of the hourglasses' five up blocks, those that read 32 and 16 pixels a side.
    assert split(fast.keypoint_detector) == split(fast.dense_motion) == 2
    # Of each decoder: the first block as one, the second's own and skip channels apart.
    assert split(fast.generator) == 2 * 3
    norms = [part for part in fast.modules() if isinstance(part, nn.BatchNorm2d)]
    assert len(norms) == large.config.generator.blocks  # the first of each residual block
    assert split(folded(large)) == 0


def test_frames_on_the_wire() -> None:
    """Grey levels survive; what lies outside [0, 1] is clamped; halves round to even."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_frame(normalised(levels)), levels)
    assert as_frame(torch.tensor([-0.5, 1.5, 0.5 / 255, 1.5 / 255])).tolist() == [0, 255, 0, 2]
