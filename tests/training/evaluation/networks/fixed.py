"""Weights and pictures that are the same everywhere, so that networks can be compared."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def fixed_state(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Random tensors of these names and shapes that keep the size of what passes through them."""
    draw, state = np.random.default_rng(0), {}
    for name in sorted(shapes):
        shape = tuple(shapes[name])
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = draw.uniform(0.5, 1.5, shape)
        elif len(shape) == 1:
            values = draw.normal(0, 0.1, shape)
        else:
            values = draw.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        state[name] = torch.from_numpy(values.astype(np.float32))
    return state


def fixed_image(*shape: int, seed: int = 1) -> Tensor:
    """Uniform in [0, 1]."""
    values = np.random.default_rng(seed).uniform(size=shape)
    return torch.from_numpy(values.astype(np.float32))
