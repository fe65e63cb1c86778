"""The custom operators of this family: keypoints to dense motion."""

from __future__ import annotations

import torch
from torch import Tensor

from ..operators import node
from .dense_motion import compose_motion as _compose_motion
from .dense_motion import sparse_motion as _sparse_motion
from .keypoint_detector import Keypoints


def sparse_motion(
    source_small: Tensor, source: Keypoints, driving: Keypoints, variance: float, geometry: str
) -> Tensor:
    """The dense motion network's input, float32 (1, (K + 1)(C + 1), h, w)."""
    if torch.compiler.is_exporting():
        channels, height, width = source_small.shape[1:]
        shape = (1, (source.value.shape[1] + 1) * (channels + 1), height, width)
        inputs = (source_small, *source, *driving)
        return node("SparseMotion", inputs, torch.float32, shape, geometry, variance=variance)
    return _sparse_motion(source_small, source, driving, variance, geometry)


def compose_motion(
    mask_logits: Tensor, source: Keypoints, driving: Keypoints, geometry: str
) -> Tensor:
    """Softmax over the K + 1 slots and the weighted sum of their motions: float32 (1, h, w, 2)."""
    if torch.compiler.is_exporting():
        shape = (1, *mask_logits.shape[-2:], 2)
        inputs = (mask_logits, *source, *driving)
        return node("ComposeMotion", inputs, torch.float32, shape, geometry)
    return _compose_motion(mask_logits, source, driving, geometry)
