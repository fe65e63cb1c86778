"""Untrained models none of whose numbers are trivial, and pictures for them.

Several heads begin at zero and BatchNorm at one: what is compared or timed on such a model could
lose them unnoticed, or meet constants only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..training.config import Config
from ..training.models.families import family_of
from ..training.models.keypoints.model import AnimationModel
from ..training.models.matching.model import MatchingModel

Image = NDArray[np.uint8]

# Widths and size at which every preset takes milliseconds; depth 5 divides 128 / 4.
SMALL = (
    "model.image_size=128",
    "model.keypoints.width=4",
    "model.keypoints.max_features=16",
    "model.motion.width=4",
    "model.motion.max_features=16",
    "model.generator.width=8",
    "model.generator.max_features=32",
    "model.generator.blocks=2",
)


def lively_model(config: Config, seed: int = 0) -> Any:
    """A model in eval mode with random parameters and statistics that moves and hides things."""
    torch.manual_seed(seed)
    model = family_of(config.model).model(config.model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5).mul_(torch.sign(torch.randn_like(module.weight)))
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
        if isinstance(model, AnimationModel):
            _tame_keypoints(model)
        elif isinstance(model, MatchingModel):
            _tame_matches(model)
    return model.eval()


def _tame_keypoints(model: AnimationModel) -> None:
    # Jacobians near the identity, or their inverses would blow up every error.
    head = model.keypoint_detector.jacobian
    head.weight.mul_(0.02)
    head.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(model.keypoint_detector.count))
    head.bias.add_(torch.randn_like(head.bias) * 0.1)
    for head in (model.dense_motion.mask, model.dense_motion.occlusion):
        head.weight.mul_(8)


def _tame_matches(model: MatchingModel) -> None:
    # Corrections of a cell or less and light that stays within the grey levels.
    for head in (model.matcher.correct[-1], model.matcher.refine[-1], model.generator.final):
        head.weight.mul_(0.1)  # type: ignore[operator,union-attr]


def speckle(size: int, channels: int = 1, seed: int = 0) -> Image:
    """A picture of soft blobs with speckle: (S, S) or (S, S, 3)."""
    rng = np.random.default_rng(seed)
    axis = (2 * np.arange(size) + 1) / size - 1
    x, y = np.meshgrid(axis, axis)
    picture = np.zeros((size, size))
    for _ in range(6):
        cx, cy, radius = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), rng.uniform(0.1, 0.4)
        picture += np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    picture *= rng.rayleigh(0.5, picture.shape)
    grey = np.clip(picture / picture.max() * 400, 0, 255).astype(np.uint8)
    if channels == 1:
        return grey
    return np.stack([grey, np.roll(grey, 5, 0), 255 - grey], axis=-1)
