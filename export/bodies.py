"""The function bodies of the custom operators, as ONNX nodes (opset 20).

A body defines its operator. ONNX Runtime and TensorRT-RTX inline it, TensorRT too if the plugin is
absent; a kernel must compute the same. Sizes are read from the inputs and the geometry is
arithmetic, so one body serves all nodes of a file; what depends on sizes alone is folded into
constants.

Convention: float32 coordinates, xy order, [-1, 1]. ``half_pixel`` is 1.0 (the centre of pixel i of
n is (2 i + 1) / n - 1, displacements are what is resized) or 0.0 (2 i / (n - 1) - 1, coordinates
are resized): FOMM's. Where something is sampled, ``align_corners`` is 0.0 (-1 and 1 are its edges)
or 1.0 (the centres of its outermost pixels). No matrix products on coordinates: GPUs would compute
them in TF32, a twentieth of a pixel coarse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ..training.models.operators import DOMAIN, OPSET

FLOAT = TensorProto.FLOAT
_LINEAR: dict[str, Any] = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
_SAMPLE: dict[str, Any] = {"mode": "linear", "padding_mode": "zeros", "align_corners": 0}


class Body:
    """The nodes of a body: `op.Add(a, b)` appends one and returns the name of what it makes."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, str] = {}

    def __getattr__(self, kind: str) -> Callable[..., Any]:
        def append(*inputs: str, outputs: int = 1, **attributes: Any) -> Any:
            names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
            self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
            return names[0] if outputs == 1 else names

        return append

    def constant(self, value: Any) -> str:
        """A float32 or int64 number or array."""
        array = np.asarray(value)
        if array.dtype != np.int64:
            array = array.astype(np.float32)
        if repr(array) not in self._constants:
            made = self.Constant(value=numpy_helper.from_array(array))
            self._constants[repr(array)] = made
        return self._constants[repr(array)]

    def attribute(self, name: str) -> str:
        """A number that each node of the operator sets."""
        if name not in self._constants:
            self._constants[name] = self.Constant()
            refers = {"name": "value_float", "type": AttributeProto.FLOAT, "ref_attr_name": name}
            self.nodes[-1].attribute.append(AttributeProto(**refers))
        return self._constants[name]

    def axis(self, count: str) -> str:
        """Pixel centres of an axis of `count` pixels (int64, scalar): float32 [count]."""
        one, half_pixel = self.constant(1.0), self.attribute("half_pixel")
        pixel = self.Cast(self.Range(self.constant(0), count, self.constant(1)), to=FLOAT)
        centre = self.Add(self.Mul(pixel, self.constant(2.0)), half_pixel)
        span = self.Add(self.Cast(count, to=FLOAT), self.Sub(half_pixel, one))
        return self.Sub(self.Div(centre, span), one)

    def axes(self, tensor: str, first: int) -> tuple[str, str]:
        """Pixel centres in x and y of a tensor whose height is dimension `first`."""
        height, width = (self.Shape(tensor, start=i, end=i + 1) for i in (first, first + 1))
        return self.axis(self.Squeeze(width)), self.axis(self.Squeeze(height))

    def sampled(self, x: str, points: str) -> str:
        """A tensor [1, C, H, W] read at points [1, h, w, 2]: bilinear, zero padding. GridSample's
        own align_corners is no number that a node could set, so the points are scaled."""
        sides = [self.Shape(x, start=i, end=i + 1) for i in (3, 2)]
        size = self.Cast(self.Concat(*sides, axis=0), to=FLOAT)
        scale = self.Div(self.Sub(size, self.attribute("align_corners")), size)
        return str(self.GridSample(x, self.Mul(points, scale), **_SAMPLE))

    def grid(self, size: str, xs: str, ys: str) -> str:
        """All pixel centres times half_pixel, as planes [1, 2, h, w]."""
        one, half_pixel = self.constant([1]), self.attribute("half_pixel")
        shape = self.Concat(one, one, size, axis=0)
        x = self.Expand(self.Mul(xs, half_pixel), shape)
        y = self.Expand(self.Unsqueeze(self.Mul(ys, half_pixel), one), shape)
        return self.Concat(x, y, axis=1)


def warp_occlude(op: Body, feature: str, deformation: str, occlusion: str) -> str:
    """As training.models.operators.warp_occlude."""
    one, halves = op.constant([1]), op.constant([1, 1])
    size, map_size = op.Shape(feature, start=2, end=4), op.Shape(deformation, start=1, end=3)
    # Not a Transpose: ONNX Runtime would move it past the Resize, which is slow with channels last.
    shape = op.Concat(one, one, map_size, axis=0)
    planes = [op.Reshape(x, shape) for x in op.Split(deformation, halves, axis=3, outputs=2)]
    displacement = op.Sub(op.Concat(*planes, axis=1), op.grid(map_size, *op.axes(deformation, 1)))
    planes_size = op.Concat(one, op.constant([2]), size, axis=0)
    resized = op.Resize(displacement, "", "", planes_size, **_LINEAR)
    points = op.Transpose(op.Add(resized, op.grid(size, *op.axes(feature, 2))), perm=[0, 2, 3, 1])
    warped = op.sampled(op.Cast(feature, to=FLOAT), points)
    occlusion_size = op.Concat(op.Shape(occlusion, start=0, end=2), size, axis=0)
    seen = op.Resize(occlusion, "", "", occlusion_size, **_LINEAR)
    return op.CastLike(op.Mul(warped, seen), feature)


Pair = tuple[str, str]  # x and y


def _motions(op: Body, sized: str, *keypoints: str) -> tuple[Pair, Pair, Pair, Pair]:
    """The motions T_k(z) = p_k^S + J_k^S (J_k^D)^-1 (z - p_k^D) of keypoints (1, K, 2),
    (1, K, 2, 2) over the pixels z of `sized`. Slot 0 of K + 1 is the identity.

    Returns:
        T_k(z), (1, K+1, h, w); z - p_k^D and z, each x (1, -, 1, w) and y (1, -, h, 1); and p_k^S,
        (1, K+1, 1, 1).
    """
    source_value, source_jacobian, driving_value, driving_jacobian = keypoints

    def slots(first: list[float], given: str) -> list[str]:
        """The numbers of all slots, one tensor (1, K+1, 1, 1) for each."""
        count = len(first)
        rest = op.Reshape(given, op.constant([1, -1, count, 1]))
        every = op.Concat(op.constant(np.reshape(first, (1, 1, count, 1))), rest, axis=1)
        parts: list[str] = op.Split(every, op.constant([1] * count), axis=2, outputs=count)
        return parts

    a, b, c, d = slots([1.0, 0.0, 0.0, 1.0], source_jacobian)
    da, db, dc, dd = slots([1.0, 0.0, 0.0, 1.0], driving_jacobian)
    source_x, source_y = slots([0.0, 0.0], source_value)
    driving_x, driving_y = slots([0.0, 0.0], driving_value)
    det = op.Sub(op.Mul(da, dd), op.Mul(db, dc))
    held = op.Max(op.Abs(det), op.constant(0.001))
    sign = op.Where(op.Less(det, op.constant(0.0)), op.constant(-1.0), op.constant(1.0))
    safe = op.Mul(held, sign)
    xx = op.Div(op.Sub(op.Mul(a, dd), op.Mul(b, dc)), safe)
    xy = op.Div(op.Sub(op.Mul(b, da), op.Mul(a, db)), safe)
    yx = op.Div(op.Sub(op.Mul(c, dd), op.Mul(d, dc)), safe)
    yy = op.Div(op.Sub(op.Mul(d, da), op.Mul(c, db)), safe)
    xs, ys = op.axes(sized, 2)
    row = op.Reshape(xs, op.constant([1, 1, 1, -1]))
    column = op.Reshape(ys, op.constant([1, 1, -1, 1]))
    x, y = op.Sub(row, driving_x), op.Sub(column, driving_y)
    moved_x = op.Add(op.Add(op.Mul(xx, x), source_x), op.Mul(xy, y))
    moved_y = op.Add(op.Add(op.Mul(yx, x), source_y), op.Mul(yy, y))
    return (moved_x, moved_y), (x, y), (row, column), (source_x, source_y)


def sparse_motion(op: Body, source_small: str, *keypoints: str) -> str:
    """As training.models.keypoints.motion.sparse_motion."""
    motions, from_driving, pixel, source = _motions(op, source_small, *keypoints)
    one, two, any_number = op.constant([1]), op.constant([2]), op.constant([-1])
    spread = op.Mul(op.attribute("variance"), op.constant(-2.0))

    def heatmap(x: str, y: str) -> str:
        column, row = (op.Exp(op.Div(op.Mul(z, z), spread)) for z in (y, x))
        return str(op.Mul(column, row))

    heatmaps = op.Sub(heatmap(*from_driving), heatmap(*map(op.Sub, pixel, source)))
    channels, height, width = (op.Shape(source_small, start=i, end=i + 1) for i in (1, 2, 3))
    moved = op.Concat(*(op.Unsqueeze(z, any_number) for z in motions), axis=-1)
    stacked = op.Reshape(moved, op.Concat(one, any_number, width, two, axis=0))
    sampled = op.sampled(source_small, stacked)
    shape = op.Concat(one, channels, any_number, height, width, axis=0)
    by_slot = op.Transpose(op.Reshape(sampled, shape), perm=[0, 2, 1, 3, 4])
    pairs = op.Concat(op.Unsqueeze(heatmaps, two), by_slot, axis=2)
    return str(op.Reshape(pairs, op.Concat(one, any_number, height, width, axis=0)))


def compose_motion(op: Body, mask_logits: str, *keypoints: str) -> str:
    """As training.models.keypoints.motion.compose_motion."""
    motions, *_ = _motions(op, mask_logits, *keypoints)
    one = op.constant([1])
    logits = op.Cast(mask_logits, to=FLOAT)
    weight = op.Exp(op.Sub(logits, op.ReduceMax(logits, one, keepdims=1)))
    sums = [op.ReduceSum(op.Mul(weight, moved), one, keepdims=1) for moved in motions]
    total = op.ReduceSum(weight, one, keepdims=1)
    return str(op.Transpose(op.Div(op.Concat(*sums, axis=1), total), perm=[0, 2, 3, 1]))


_KEYPOINTS = ("source_value", "source_jacobian", "driving_value", "driving_jacobian")
BODIES: dict[str, tuple[Callable[..., str], tuple[str, ...], tuple[str, ...]]] = {
    "WarpOcclude": (warp_occlude, ("feature", "deformation", "occlusion"), ("align_corners",)),
    "SparseMotion": (sparse_motion, ("source_small", *_KEYPOINTS), ("align_corners", "variance")),
    "ComposeMotion": (compose_motion, ("mask_logits", *_KEYPOINTS), ()),
}
"""By operator: its body, the names of its inputs, and its attributes beside the common ones."""


def function_body(name: str) -> onnx.FunctionProto:
    """The model-local function that is the meaning of operator ``name``."""
    write, inputs, attributes = BODIES[name]
    op = Body()
    output = write(op, *inputs)
    return helper.make_function(
        DOMAIN, name, inputs, [output], op.nodes, [helper.make_opsetid("", OPSET)],
        ["half_pixel", *attributes, "plugin_namespace", "plugin_version"],
    )  # fmt: skip
