"""Untrained models none of whose numbers are trivial, also as checkpoints, and pictures for them.

Several heads begin at zero and BatchNorm at one: a comparison on such a model would not notice when
they are lost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import Config
from sonomime.training.config_file import load_config
from sonomime.training.models.base import Model
from sonomime.training.models.families import family_of

Image = NDArray[np.uint8]

SMALL = (
    "model.image_size=128",  # depth 5 divides 128 / 4
    *(f"model.{part}.width=4" for part in ("keypoints", "motion")),
    *(f"model.{part}.max_features=16" for part in ("keypoints", "motion")),
    *(f"model.generator.{size}" for size in ("width=8", "max_features=32", "blocks=2")),
)
SMALL_LITE = (
    "model.image_size=128",
    "model.corrector.width=8",
    *(f"model.matcher.{size}=8" for size in ("fine", "stiff", "shading")),
    *(f"model.matcher.{size}=16" for size in ("coarse", "grid")),
)
"""Sizes and widths at which a model takes milliseconds."""

#: Factors of what makes a model move and hide things; what starts at zero stays near it, or
#: jacobians' inverses and exponentials would blow up every error.
FACTORS = {"dense_motion.mask": 8.0, "dense_motion.occlusion": 8.0, "dense_motion.head": 2.0}
NEAR_ZERO = 0.02


def small_config(preset: str, *overrides: str) -> Config:
    """A preset made small."""
    small = SMALL_LITE if preset == "lite" else SMALL
    return load_config(preset, (*small, *overrides))


def lively_model(config: Config, seed: int = 0) -> Model:
    """A model in eval mode with random parameters and statistics that moves and hides things."""
    torch.manual_seed(seed)
    model: Model = family_of(config.model).model(config.model)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5).mul_(torch.sign(torch.randn_like(module.weight)))
                module.bias.normal_(0, 0.2)
                module.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, NEAR_ZERO)
            elif isinstance(module, nn.Conv2d):
                starts_at_zero = not module.weight.any()
                factor = FACTORS.get(name, NEAR_ZERO if starts_at_zero else 1.0)
                module.weight.normal_(0, factor * (2 / module.weight[0].numel()) ** 0.5)
                if module.bias is not None:
                    start = module.bias.clone() if starts_at_zero else 0.0
                    module.bias.normal_(0, 0.1).add_(start)
    return model.eval()


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


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers in [0, 1)."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def lively_checkpoint(preset: str, overrides: Sequence[str] = (), seed: int = 0) -> Checkpoint:
    """A checkpoint of such a model."""
    config = load_config(preset, overrides)
    weights = lively_model(config, seed).state_dict()
    names = ["symphysis", "bladder neck"][: family_of(config.model).labels(config.model)]
    return Checkpoint(config, 7, weights, names, [{"name": "speckle", "licence": "CC0"}])
