"""The stages, still in torch, against the model's own methods: every preset of keypoints, small."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from lively import SMALL, lively_checkpoint, speckle
from torch import nn

from sonomime.training.models.base import as_frame, normalised
from sonomime.training.models.keypoints.family import KeypointFamily
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.models.keypoints.rewrite import PhaseConv, folded, rewritten

FAMILY = KeypointFamily()
VARIANTS = [
    ("fomm", ("geometry=fomm", "channels=3")),
    ("ours-p", ()),
    ("ours-pt", ("channels=3",)),
    ("ours-ptg", ("generator.bottleneck=split", "generator.fusion=logit")),
    ("ours-ptg", ("generator.upsample=bilinear",)),
    ("ours-ptg", ("generator.downs=3",)),
]


def model_of(preset: str, overrides: Sequence[str] = ()) -> AnimationModel:
    changed = (f"model.{each}" for each in overrides)
    model: AnimationModel = lively_checkpoint(preset, (*SMALL, *changed)).model()
    return model


@pytest.mark.parametrize(("preset", "overrides"), VARIANTS)
@torch.no_grad()
def test_stages_compute_what_the_model_does(preset: str, overrides: Sequence[str]) -> None:
    """Every stage on the model's own tensors, for two frames, in absolute and in smooth motion."""
    model = model_of(preset, overrides)
    before = copy.deepcopy(model.state_dict())
    stages = FAMILY.chain(model).stages
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    oracle = FAMILY.oracle(model)
    source, reference, *frames = (speckle(128, model.config.channels, seed) for seed in range(4))
    oracle.set_source(source, reference)
    for frame, control in zip(
        frames, ({"relative": 0.0}, {"min_cutoff": 1.5, "beta": 10.0}), strict=True
    ):
        tensors = oracle.animate(frame, control)
        for stage in stages:
            results = stage.module(*(torch.from_numpy(tensors[t.name]) for t in stage.inputs))
            for tensor, result in zip(stage.outputs, results, strict=True):
                wanted = tensors[tensor.name]
                assert tensor.shape == tuple(result.shape) == wanted.shape, tensor.name
                assert tensor.dtype == str(result.dtype)[6:] == wanted.dtype.name, tensor.name
                found = result.numpy().astype(np.float64)
                bound = 1 if tensor.name == "frame" else 1e-4 * max(1, np.abs(wanted).max())
                assert np.abs(found - wanted).max() <= bound, (stage.name, tensor.name)


def test_rewrites_reach_their_layers() -> None:
    def split(module: nn.Module) -> int:
        return sum(isinstance(part, PhaseConv) for part in module.modules())

    large = model_of("ours-ptg", ["image_size=256"])
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
