"""The operators' function bodies against torch, and that runtimes take the bodies in."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from sonomime.export.bodies import BODIES, function_body
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints.dense_motion import compose_motion, sparse_motion
from sonomime.training.models.keypoints.keypoint_detector import Keypoints

GEOMETRIES = ("half_pixel", "fomm")
POINTS = ("source_value", "source_jacobian", "driving_value", "driving_jacobian")
_TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}


def one_node(
    name: str, inputs: dict[str, Tensor], output: Tensor, **attributes: Any
) -> onnx.ModelProto:
    """A model of one custom node and its body."""
    node = helper.make_node(
        name, list(inputs), ["out"], domain=operators.DOMAIN,
        plugin_namespace="sonomime", plugin_version="1", **attributes,
    )  # fmt: skip
    values = [helper.make_tensor_value_info(n, _TYPES[t.dtype], t.shape) for n, t in inputs.items()]
    result = helper.make_tensor_value_info("out", _TYPES[output.dtype], output.shape)
    model = helper.make_model(
        helper.make_graph([node], name, values, [result]),
        functions=[function_body(name)],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(operators.DOMAIN, 1)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def by_body(
    name: str, inputs: dict[str, Tensor], output: Tensor, **attributes: Any
) -> NDArray[Any]:
    """What ONNX Runtime, which knows nothing of the operator, makes of it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    model = one_node(name, inputs, output, **attributes).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    result: NDArray[Any] = session.run(None, {n: t.numpy() for n, t in inputs.items()})[0]
    return result


def points(count: int, seed: int) -> Keypoints:
    generator = torch.Generator().manual_seed(seed)
    value = torch.rand(1, count, 2, generator=generator) * 2 - 1
    noise = torch.randn(1, count, 2, 2, generator=generator)
    return Keypoints(value, torch.eye(2) + 0.2 * noise)


def half(geometry: str) -> float:
    return float(geometry == "half_pixel")


@settings(max_examples=20)
@given(
    geometry=st.sampled_from(GEOMETRIES),
    map_size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    channels=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_warp_occlude(
    geometry: str, map_size: tuple[int, int], size: tuple[int, int], channels: int, seed: int
) -> None:
    torch.manual_seed(seed)
    feature = torch.randn(1, channels, *size)
    deformation = make_grid(*map_size, geometry)[None] + 0.3 * torch.randn(1, *map_size, 2)
    occlusion = torch.rand(1, 1, *map_size)
    wanted = operators.warp_occlude(feature, deformation, occlusion, geometry)
    inputs = {"feature": feature, "deformation": deformation, "occlusion": occlusion}
    found = by_body("WarpOcclude", inputs, wanted, half_pixel=half(geometry))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [8, 32])
def test_known_translations_are_exact_up_to_the_border(size: int, shift: int) -> None:
    """Displacements are resized, not coordinates."""
    feature = torch.randn(1, 2, size, size)
    moved = make_grid(8, 8, "half_pixel")[None] + torch.tensor([2 * shift / size, 0.0])
    inputs = {"feature": feature, "deformation": moved, "occlusion": torch.ones(1, 1, 8, 8)}
    found = by_body("WarpOcclude", inputs, feature, half_pixel=1.0)
    wanted = torch.nn.functional.pad(feature, (0, shift))[..., shift:]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_half_features_are_sampled_at_float_coordinates() -> None:
    """Far from the origin a half coordinate would be off by a sixteenth of a pixel."""
    ramp = torch.arange(256.0).expand(1, 1, 4, 256) / 256
    feature = ramp.half()
    deformation = make_grid(4, 256, "half_pixel")[None] - torch.tensor([0.5 / 256 * 2, 0.0])
    occlusion = torch.ones(1, 1, 4, 256)
    inputs = {"feature": feature, "deformation": deformation, "occlusion": occlusion}
    found = by_body("WarpOcclude", inputs, feature, half_pixel=1.0)
    assert found.dtype == np.float16
    wanted = (ramp[..., 1:] - 0.5 / 256).half()  # half way between two neighbours
    np.testing.assert_allclose(found[..., 1:], wanted, rtol=0, atol=5e-4)


@settings(max_examples=12)
@given(
    geometry=st.sampled_from(GEOMETRIES),
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    variance=st.sampled_from([0.01, 0.1]),
    seed=st.integers(0, 99),
)
def test_sparse_motion(
    geometry: str, count: int, channels: int, size: tuple[int, int], variance: float, seed: int
) -> None:
    torch.manual_seed(seed)
    small = torch.rand(1, channels, *size)
    source, driving = points(count, seed), points(count, seed + 1)
    wanted = sparse_motion(small, source, driving, variance, geometry)
    inputs = {"source_small": small, **dict(zip(POINTS, (*source, *driving), strict=True))}
    attributes = {"half_pixel": half(geometry), "variance": variance}
    found = by_body("SparseMotion", inputs, wanted, **attributes)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)


@settings(max_examples=12)
@given(
    geometry=st.sampled_from(GEOMETRIES),
    count=st.integers(1, 5),
    size=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    seed=st.integers(0, 99),
)
def test_compose_motion(geometry: str, count: int, size: tuple[int, int], seed: int) -> None:
    torch.manual_seed(seed)
    logits = 5 * torch.randn(1, count + 1, *size)
    source, driving = points(count, seed), points(count, seed + 1)
    wanted = compose_motion(logits, source, driving, geometry)
    inputs = {"mask_logits": logits, **dict(zip(POINTS, (*source, *driving), strict=True))}
    found = by_body("ComposeMotion", inputs, wanted, half_pixel=half(geometry))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("determinant", [1e-6, -1e-6, 0.0, 0.1])
def test_singular_jacobians_are_held_and_large_logits_do_not_overflow(determinant: float) -> None:
    """abs(det) is held at 1e-3 and its sign is kept, in the body as in the model."""
    source = points(1, 0)
    flat = Keypoints(source.value, torch.tensor([[[[0.01, 0.0], [0.0, determinant / 0.01]]]]))
    logits = torch.tensor([300.0, 299.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).contiguous()
    wanted = compose_motion(logits, source, flat, "half_pixel")
    inputs = {"mask_logits": logits, **dict(zip(POINTS, (*source, *flat), strict=True))}
    found = by_body("ComposeMotion", inputs, wanted, half_pixel=1.0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", sorted(BODIES))
def test_bodies_say_what_a_plugin_needs(name: str) -> None:
    body = function_body(name)
    assert (body.domain, body.name) == ("sonomime", name)
    assert {"plugin_namespace", "plugin_version", "half_pixel"} <= set(body.attribute)
    assert [(o.domain, o.version) for o in body.opset_import] == [("", operators.OPSET)]
    assert name not in {schema.name for schema in onnx.defs.get_all_schemas()}
    # Products of coordinates are left to no matrix unit.
    assert not {"MatMul", "Gemm", "Einsum", "Conv"} & {node.op_type for node in body.node}
