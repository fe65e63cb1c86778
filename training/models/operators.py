"""Custom operators of a graph: the warp, and how an operator becomes a node.

During ``torch.export`` each function leaves one node of domain ``sonomime``; otherwise it computes
with the model's own arithmetic. So the same forward is run, tested and exported.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .geometry import resize_map, warp

DOMAIN = "sonomime"
VERSION = 2  # raised when what a node computes changes: old nodes then keep to their own bodies
OPSET = 20

_PLUGIN = {"plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}


def warp_occlude(feature: Tensor, deformation: Tensor, occlusion: Tensor, geometry: str) -> Tensor:
    """Read ``feature`` where ``deformation`` says, times the occlusion map; both are resized.

    (B, C, H, W), float32 (B, h, w, 2), float32 (B, 1, h, w) -> (B, C, H, W) of the feature's dtype.
    """
    if torch.compiler.is_exporting():
        inputs = (feature, deformation, occlusion)
        return node(
            "WarpOcclude", inputs, feature.dtype, feature.shape, geometry, **sampling(geometry)
        )
    warped = warp(feature, deformation, geometry)
    return warped * resize_map(occlusion, *feature.shape[-2:]).to(warped.dtype)


def sampling(geometry: str) -> dict[str, float]:
    """The attribute of nodes that sample: 1 if -1 and +1 are the outermost pixels' centres there,
    0 if they are the edges."""
    return {"align_corners": float(geometry == "fomm_aligned")}


def node(
    name: str, inputs: tuple[Tensor, ...], dtype: torch.dtype, shape: tuple[int, ...],
    geometry: str, **attributes: float,
) -> Tensor:  # fmt: skip
    """One node of domain ``sonomime``; ``export/bodies.py`` defines what it computes."""
    attrs: Any = {"half_pixel": float(geometry == "half_pixel"), **attributes, **_PLUGIN}
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
