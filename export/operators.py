"""The custom operators: computed in torch, as nodes of a graph, and their bodies.

While ``torch.export`` traces, each function leaves one node of domain ``sonomime``; otherwise it
computes with the model's own arithmetic, so that a stage can be run, tested and exported by the
same forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..training.models.dense_motion import compose_motion as _compose_motion
from ..training.models.dense_motion import sparse_motion as _sparse_motion
from ..training.models.geometry import resize_map, warp
from ..training.models.keypoint_detector import Keypoints
from . import bodies

if TYPE_CHECKING:
    import onnx

DOMAIN = "sonomime"
VERSION = 1
OPSET = 20

BODIES = {
    "WarpOcclude": bodies.WARP_OCCLUDE,
    "SparseMotion": bodies.SPARSE_MOTION,
    "ComposeMotion": bodies.COMPOSE_MOTION,
}
_PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}


def warp_occlude(feature: Tensor, deformation: Tensor, occlusion: Tensor, geometry: str) -> Tensor:
    """Read ``feature`` where ``deformation`` says, times the occlusion map; both are resized.

    (1, C, H, W), float32 (1, h, w, 2), float32 (1, 1, h, w) -> (1, C, H, W) of the feature's dtype.
    """
    if torch.compiler.is_exporting():
        inputs = (feature, deformation, occlusion)
        return _node("WarpOcclude", inputs, feature.dtype, feature.shape, geometry)
    warped = warp(feature, deformation, geometry).float()
    return (warped * resize_map(occlusion, *feature.shape[-2:])).to(feature.dtype)


def sparse_motion(
    source_small: Tensor, source: Keypoints, driving: Keypoints, variance: float, geometry: str
) -> Tensor:
    """The dense motion network's input, float32 (1, (K + 1)(C + 1), h, w)."""
    if torch.compiler.is_exporting():
        channels, height, width = source_small.shape[1:]
        shape = (1, (source.value.shape[1] + 1) * (channels + 1), height, width)
        inputs = (source_small, *source, *driving)
        return _node("SparseMotion", inputs, torch.float32, shape, geometry, variance=variance)
    return _sparse_motion(source_small, source, driving, variance, geometry)


def compose_motion(
    mask_logits: Tensor, source: Keypoints, driving: Keypoints, geometry: str
) -> Tensor:
    """Softmax over the K + 1 slots and the weighted sum of their motions: float32 (1, h, w, 2)."""
    if torch.compiler.is_exporting():
        shape = (1, *mask_logits.shape[-2:], 2)
        inputs = (mask_logits, *source, *driving)
        return _node("ComposeMotion", inputs, torch.float32, shape, geometry)
    return _compose_motion(mask_logits, source, driving, geometry)


def _node(
    name: str,
    inputs: tuple[Tensor, ...],
    dtype: torch.dtype,
    shape: Any,
    geometry: str,
    **attributes: float,
) -> Tensor:
    half_pixel = 1.0 if geometry == "half_pixel" else 0.0
    attrs: Any = {"half_pixel": half_pixel, **attributes, **_PLUGIN}
    return torch.onnx.ops.symbolic(
        f"{DOMAIN}::{name}", inputs, attrs, dtype=dtype, shape=tuple(shape), version=VERSION
    )


def standard_node(
    name: str, inputs: tuple[Tensor, ...], shape: tuple[int, ...], attributes: dict[str, Any]
) -> Tensor:
    """One node of ONNX's own domain, where torch has no such operator; first input's dtype."""
    return torch.onnx.ops.symbolic(
        name, inputs, attributes, dtype=inputs[0].dtype, shape=shape, version=OPSET
    )


def function_body(name: str) -> onnx.FunctionProto:
    """The model-local function that is the meaning of operator ``name``."""
    import onnx.parser

    return onnx.parser.parse_function(BODIES[name])
