"""The function bodies of the custom operators, in ONNX's text form (opset 20).

A body defines its operator. ONNX Runtime and TensorRT-RTX inline it, TensorRT too if the plugin is
absent; a kernel must compute the same. Sizes are read from the inputs and the geometry is
arithmetic, so one body serves all nodes of a file; what depends on sizes alone is folded into
constants.

Convention: float32 coordinates, xy order, [-1, 1]. ``half_pixel`` is 1.0 (the centre of pixel i of
n is (2 i + 1) / n - 1, displacements are what is resized) or 0.0 (2 i / (n - 1) - 1, coordinates
are resized): FOMM's. No matrix products on coordinates: GPUs would compute them in TF32, a
twentieth of a pixel coarse.
"""

from __future__ import annotations

import onnx
import onnx.parser

# Pixel centres of an axis of `count` pixels (int64 scalar), float32 [count].
_AXIS = """
   {out}_index = Range(zero, {count}, one)
   {out}_pixel = Cast<to = 1>({out}_index)
   {out}_size = Cast<to = 1>({count})
   {out}_twice = Mul({out}_pixel, two_f)
   {out}_centre = Add({out}_twice, half_pixel_f)
   {out}_less = Sub(half_pixel_f, one_f)
   {out}_span = Add({out}_size, {out}_less)
   {out}_from0 = Div({out}_centre, {out}_span)
   {out} = Sub({out}_from0, one_f)
"""

_CONSTANTS = """
   half_pixel_f = Constant<value_float: float = @half_pixel>()
   zero = Constant<value = int64 {0}>()
   one = Constant<value = int64 {1}>()
   zero_f = Constant<value = float {0.0}>()
   one_f = Constant<value = float {1.0}>()
   two_f = Constant<value = float {2.0}>()
"""


def _axis(out: str, count: str) -> str:
    return _AXIS.format(out=out, count=count)


# xs: [w], ys: [h] -> planes [1, 2, h, w] of all pixel centres, times half_pixel.
_PLANES = """
   {out}_shape = Concat<axis = 0>(one_1, one_1, {size})
   {out}_xs = Mul({xs}, half_pixel_f)
   {out}_x = Expand({out}_xs, {out}_shape)
   {out}_ys = Mul({ys}, half_pixel_f)
   {out}_column = Unsqueeze({out}_ys, one_1)
   {out}_y = Expand({out}_column, {out}_shape)
   {out} = Concat<axis = 1>({out}_x, {out}_y)
"""

WARP_OCCLUDE = (
    """
<domain: "sonomime", opset_import: ["" : 20]>
WarpOcclude <half_pixel, plugin_namespace, plugin_version>
(feature, deformation, occlusion) => (occluded)
{"""
    + _CONSTANTS
    + """
   one_1 = Constant<value_ints = [1]>()
   two_1 = Constant<value_ints = [2]>()
   size = Shape<start = 2, end = 4>(feature)
   height_1 = Shape<start = 2, end = 3>(feature)
   width_1 = Shape<start = 3, end = 4>(feature)
   height = Squeeze(height_1)
   width = Squeeze(width_1)
   map_size = Shape<start = 1, end = 3>(deformation)
   map_height_1 = Shape<start = 1, end = 2>(deformation)
   map_width_1 = Shape<start = 2, end = 3>(deformation)
   map_height = Squeeze(map_height_1)
   map_width = Squeeze(map_width_1)
"""
    + _axis("map_xs", "map_width")
    + _axis("map_ys", "map_height")
    + _axis("xs", "width")
    + _axis("ys", "height")
    + _PLANES.format(out="map_grid", size="map_size", xs="map_xs", ys="map_ys")
    + _PLANES.format(out="grid", size="size", xs="xs", ys="ys")
    + """
   # Not a Transpose: ONNX Runtime would move it past the Resize, which is slow with channels last.
   split_2 = Constant<value_ints = [1, 1]>()
   plane_shape = Concat<axis = 0>(one_1, one_1, map_size)
   read_x, read_y = Split<axis = 3>(deformation, split_2)
   plane_x = Reshape(read_x, plane_shape)
   plane_y = Reshape(read_y, plane_shape)
   planes = Concat<axis = 1>(plane_x, plane_y)
   displacement = Sub(planes, map_grid)
   planes_size = Concat<axis = 0>(one_1, two_1, size)
   resized = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">
      (displacement, , , planes_size)
   where = Add(resized, grid)
   points = Transpose<perm = [0, 2, 3, 1]>(where)
   feature_f = Cast<to = 1>(feature)
   warped = GridSample<mode = "linear", padding_mode = "zeros", align_corners = 0>
      (feature_f, points)
   occlusion_channels = Shape<start = 0, end = 2>(occlusion)
   occlusion_size = Concat<axis = 0>(occlusion_channels, size)
   seen = Resize<mode = "linear", coordinate_transformation_mode = "half_pixel">
      (occlusion, , , occlusion_size)
   product = Mul(warped, seen)
   occluded = CastLike(product, feature)
}
"""
)

# source, driving keypoints (1, K, 2), (1, K, 2, 2) -> over K + 1 slots, slot 0 the identity:
# moved_x, moved_y (1, K+1, h, w) = T_k(z) = p_k^S + J_k^S (J_k^D)^-1 (z - p_k^D);
# from_driving_x (1, K+1, 1, w) and from_driving_y (1, K+1, h, 1) = z - p_k^D.
_LOCAL_MOTIONS = (
    """
   one_1 = Constant<value_ints = [1]>()
   split_2 = Constant<value_ints = [1, 1]>()
   split_4 = Constant<value_ints = [1, 1, 1, 1]>()
   flat_shape = Constant<value_ints = [1, -1, 4, 1]>()
   point_shape = Constant<value_ints = [1, -1, 2, 1]>()
   origin = Constant<value = float[1,1,2,1] {0.0, 0.0}>()
   identity = Constant<value = float[1,1,4,1] {1.0, 0.0, 0.0, 1.0}>()
   floor = Constant<value = float {0.001}>()
   minus_one_f = Constant<value = float {-1.0}>()
   row_shape = Constant<value_ints = [1, 1, 1, -1]>()
   column_shape = Constant<value_ints = [1, 1, -1, 1]>()
   source_jacobians = Reshape(source_jacobian, flat_shape)
   driving_jacobians = Reshape(driving_jacobian, flat_shape)
   all_source_jacobians = Concat<axis = 1>(identity, source_jacobians)
   all_driving_jacobians = Concat<axis = 1>(identity, driving_jacobians)
   source_points = Reshape(source_value, point_shape)
   driving_points = Reshape(driving_value, point_shape)
   all_source_points = Concat<axis = 1>(origin, source_points)
   all_driving_points = Concat<axis = 1>(origin, driving_points)
   sa, sb, sc, sd = Split<axis = 2>(all_source_jacobians, split_4)
   da, db, dc, dd = Split<axis = 2>(all_driving_jacobians, split_4)
   source_x, source_y = Split<axis = 2>(all_source_points, split_2)
   driving_x, driving_y = Split<axis = 2>(all_driving_points, split_2)
   ad = Mul(da, dd)
   bc = Mul(db, dc)
   det = Sub(ad, bc)
   size_of_det = Abs(det)
   held = Max(size_of_det, floor)
   negative = Less(det, zero_f)
   sign = Where(negative, minus_one_f, one_f)
   safe = Mul(held, sign)
   sadd = Mul(sa, dd)
   sbdc = Mul(sb, dc)
   n00 = Sub(sadd, sbdc)
   sbda = Mul(sb, da)
   sadb = Mul(sa, db)
   n01 = Sub(sbda, sadb)
   scdd = Mul(sc, dd)
   sddc = Mul(sd, dc)
   n10 = Sub(scdd, sddc)
   sdda = Mul(sd, da)
   scdb = Mul(sc, db)
   n11 = Sub(sdda, scdb)
   a00 = Div(n00, safe)
   a01 = Div(n01, safe)
   a10 = Div(n10, safe)
   a11 = Div(n11, safe)
"""
    + _axis("xs", "width")
    + _axis("ys", "height")
    + """
   row = Reshape(xs, row_shape)
   column = Reshape(ys, column_shape)
   from_driving_x = Sub(row, driving_x)
   from_driving_y = Sub(column, driving_y)
   x_by_x = Mul(a00, from_driving_x)
   x_row = Add(x_by_x, source_x)
   x_by_y = Mul(a01, from_driving_y)
   moved_x = Add(x_row, x_by_y)
   y_by_x = Mul(a10, from_driving_x)
   y_row = Add(y_by_x, source_y)
   y_by_y = Mul(a11, from_driving_y)
   moved_y = Add(y_row, y_by_y)
"""
)


def _motion(signature: str, sized: str, ending: str) -> str:
    """A function of the keypoints' motions over the pixels of its input ``sized``."""
    return (
        '<domain: "sonomime", opset_import: ["" : 20]>'
        + signature
        + "{"
        + _CONSTANTS
        + f"""
   height_1 = Shape<start = 2, end = 3>({sized})
   width_1 = Shape<start = 3, end = 4>({sized})
   height = Squeeze(height_1)
   width = Squeeze(width_1)
"""
        + _LOCAL_MOTIONS
        + ending
        + "}"
    )


SPARSE_MOTION = _motion(
    """
SparseMotion <half_pixel, variance, plugin_namespace, plugin_version>
(source_small, source_value, source_jacobian, driving_value, driving_jacobian) => (sparse)
""",
    "source_small",
    """
   variance_f = Constant<value_float: float = @variance>()
   minus_two = Constant<value = float {-2.0}>()
   spread = Mul(variance_f, minus_two)
   from_source_x = Sub(row, source_x)
   from_source_y = Sub(column, source_y)
   driving_xx = Mul(from_driving_x, from_driving_x)
   driving_yy = Mul(from_driving_y, from_driving_y)
   source_xx = Mul(from_source_x, from_source_x)
   source_yy = Mul(from_source_y, from_source_y)
   driving_xx_spread = Div(driving_xx, spread)
   driving_yy_spread = Div(driving_yy, spread)
   source_xx_spread = Div(source_xx, spread)
   source_yy_spread = Div(source_yy, spread)
   driving_row = Exp(driving_xx_spread)
   driving_column = Exp(driving_yy_spread)
   source_row = Exp(source_xx_spread)
   source_column = Exp(source_yy_spread)
   driving_heatmap = Mul(driving_column, driving_row)
   source_heatmap = Mul(source_column, source_row)
   heatmap = Sub(driving_heatmap, source_heatmap)
   minus_one_1 = Constant<value_ints = [-1]>()
   two_1 = Constant<value_ints = [2]>()
   stacked_shape = Concat<axis = 0>(one_1, minus_one_1, width_1, two_1)
   x_last = Unsqueeze(moved_x, minus_one_1)
   y_last = Unsqueeze(moved_y, minus_one_1)
   moved = Concat<axis = -1>(x_last, y_last)
   stacked = Reshape(moved, stacked_shape)
   sampled = GridSample<mode = "linear", padding_mode = "zeros", align_corners = 0>
      (source_small, stacked)
   channels_1 = Shape<start = 1, end = 2>(source_small)
   by_slot_shape = Concat<axis = 0>(one_1, channels_1, minus_one_1, height_1, width_1)
   by_channel = Reshape(sampled, by_slot_shape)
   by_slot = Transpose<perm = [0, 2, 1, 3, 4]>(by_channel)
   heatmaps = Unsqueeze(heatmap, two_1)
   pairs = Concat<axis = 2>(heatmaps, by_slot)
   sparse_shape = Concat<axis = 0>(one_1, minus_one_1, height_1, width_1)
   sparse = Reshape(pairs, sparse_shape)
""",
)

COMPOSE_MOTION = _motion(
    """
ComposeMotion <half_pixel, plugin_namespace, plugin_version>
(mask_logits, source_value, source_jacobian, driving_value, driving_jacobian) => (deformation)
""",
    "mask_logits",
    """
   logits = Cast<to = 1>(mask_logits)
   highest = ReduceMax<keepdims = 1>(logits, one_1)
   lowered = Sub(logits, highest)
   weight = Exp(lowered)
   total = ReduceSum<keepdims = 1>(weight, one_1)
   weighted_x = Mul(weight, moved_x)
   weighted_y = Mul(weight, moved_y)
   sum_x = ReduceSum<keepdims = 1>(weighted_x, one_1)
   sum_y = ReduceSum<keepdims = 1>(weighted_y, one_1)
   planes_sum = Concat<axis = 1>(sum_x, sum_y)
   planes = Div(planes_sum, total)
   deformation = Transpose<perm = [0, 2, 3, 1]>(planes)
""",
)

BODIES = {
    "WarpOcclude": WARP_OCCLUDE,
    "SparseMotion": SPARSE_MOTION,
    "ComposeMotion": COMPOSE_MOTION,
}


def function_body(name: str) -> onnx.FunctionProto:
    """The model-local function that is the meaning of operator ``name``."""
    return onnx.parser.parse_function(BODIES[name])
