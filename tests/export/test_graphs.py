"""The ONNX files: whole, static, inlinable, silent about the machine; the operators' function
bodies against torch, and that runtimes take the bodies in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lively import SMALL, lively_checkpoint
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from sonomime.benchmarks.gpu.kernels import SOURCES
from sonomime.export.bodies import BODIES, function_body
from sonomime.export.graphs import export_stage
from sonomime.runtime.support.errors import ExportError
from sonomime.training.models import operators
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.keypoints.family import KeypointFamily
from sonomime.training.models.keypoints.motion import Keypoints, compose_motion, sparse_motion
from sonomime.training.models.operators import DOMAIN, OPSET, VERSION

FOMM = (*SMALL, "model.geometry=fomm_aligned", "model.channels=3")


def opened(model: onnx.ModelProto, **options: Any) -> ort.InferenceSession:
    """By ONNX Runtime, which knows nothing of the operators."""
    settings = ort.SessionOptions()
    for name, value in {"intra_op_num_threads": 1, "log_severity_level": 3, **options}.items():
        setattr(settings, name, value)
    content = model.SerializeToString()
    return ort.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


@pytest.fixture(params=["ours-pt", "fomm"])
def stages(request: Any, graphs: Any) -> dict[str, onnx.ModelProto]:
    """One preset whole, of the other what differs."""
    ours = request.param == "ours-pt"
    made = graphs(request.param, "fp32", *(SMALL if ours else FOMM))
    return {name: made[name] for name in (made.stages if ours else ("motion", "generator"))}


def test_a_file_is_whole_static_and_of_one_opset(
    stages: dict[str, onnx.ModelProto], request: pytest.FixtureRequest
) -> None:
    expected = {"motion": ["ComposeMotion", "SparseMotion"], "generator": ["WarpOcclude"]}
    corners = "fomm" in request.node.name
    for name, model in stages.items():
        versions = {opset.domain: opset.version for opset in model.opset_import}
        assert versions.pop("") == OPSET and set(versions) <= {DOMAIN} and model.ir_version <= 10
        bodies = {function.name: function for function in model.functions}
        assert sorted(bodies) == expected.get(name, [])
        for node in model.graph.node:
            assert node.domain in ("", DOMAIN), name
            if node.domain == DOMAIN:
                stated = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                assert stated["half_pixel"] == float(not corners)
                assert stated.get("align_corners", corners) == corners
                assert stated["plugin_version"] == str(VERSION).encode()
                assert set(stated) == set(bodies[node.op_type].attribute)
                assert len(node.input) == len(bodies[node.op_type].input) and all(node.input)
        for value in (*model.graph.input, *model.graph.output):
            assert all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim)
        for tensor in model.graph.initializer:
            assert tensor.data_location == onnx.TensorProto.DEFAULT and not tensor.external_data
        content = model.SerializeToString()
        for trace in (b".py", str(Path.home()).encode() + b"/", b"site-packages", b"torch."):
            assert trace not in content


def test_stages_need_no_padding_and_runtimes_see_only_standard_operators(
    stages: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    """Asymmetric padding is the convolution's own. The bodies are inlined, and what depends on
    sizes alone is folded."""
    nodes = stages["generator"].graph.node
    operations = {node.op_type for node in nodes}
    assert "Pad" not in operations and "DepthToSpace" in operations
    stated = [{a.name: tuple(a.ints) for a in node.attribute} for node in nodes]
    assert {(1, 1, 0, 0), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 0)} <= {
        attributes.get("pads", ()) for attributes in stated
    }
    for name in ("motion", "generator"):
        basic = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        file = str(tmp_path / f"{name}.onnx")
        opened(stages[name], graph_optimization_level=basic, optimized_model_filepath=file)
        inlined = onnx.load(file).graph.node
        assert DOMAIN not in {node.domain for node in inlined}
        assert not {"Range", "Shape", "Expand"} & {node.op_type for node in inlined}


def test_half_graph_keeps_motion_in_float(graphs: Any) -> None:
    model = onnx.shape_inference.infer_shapes(graphs("ours-pt", "fp16", *SMALL)["motion"])
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            # Inputs of the graph are float32 by the contract, so only inner ones are looked up.
            inner = {kinds[name] for name in node.input if name in kinds}
            assert inner <= {onnx.TensorProto.FLOAT}
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in weights


def test_a_stage_that_differs_from_its_wire_is_refused() -> None:
    stage = KeypointFamily().chain(lively_checkpoint("ours-pt", SMALL).model()).stages[1]
    with pytest.raises(ExportError, match=stage.name):
        export_stage(replace(stage, outputs=tuple(reversed(stage.outputs))))


_TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16}
SIZES = st.tuples(st.integers(2, 12), st.integers(2, 12))


def by_body(
    name: str, inputs: tuple[Tensor, ...], output: Tensor, geometry: str, **attributes: Any
) -> NDArray[Any]:
    """What ONNX Runtime, which knows nothing of the operator, makes of one node and its body."""
    body = function_body(name)
    if "align_corners" in body.attribute:
        attributes |= operators.sampling(geometry)
    node = helper.make_node(
        name, body.input, ["out"], domain=DOMAIN, plugin_namespace="sonomime",
        plugin_version=str(VERSION), half_pixel=float(geometry == "half_pixel"), **attributes,
    )  # fmt: skip
    values = [
        helper.make_tensor_value_info(name, _TYPES[tensor.dtype], tensor.shape)
        for name, tensor in zip((*body.input, "out"), (*inputs, output), strict=True)
    ]
    model = helper.make_model(
        helper.make_graph([node], name, values[:-1], values[-1:]),
        functions=[body],
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    session = opened(model)
    named = {name: t.numpy() for name, t in zip(body.input, inputs, strict=True)}
    result: NDArray[Any] = session.run(None, named)[0]
    return result


def points(count: int) -> Keypoints:
    jacobian = torch.eye(2) + 0.2 * torch.randn(1, count, 2, 2)
    return Keypoints(torch.rand(1, count, 2) * 2 - 1, jacobian)


@settings(max_examples=20)
@given(
    geometry=st.sampled_from(["half_pixel", "fomm_aligned", "fomm_unaligned"]),
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    size=SIZES,
    map_size=SIZES,
    variance=st.sampled_from([0.01, 0.1]),
    seed=st.integers(0, 99),
)
def test_bodies_compute_what_torch_does(
    geometry: str, count: int, channels: int, size: tuple[int, int], map_size: tuple[int, int],
    variance: float, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    source, driving = points(count), points(count)
    small, logits = torch.rand(1, channels, *size), 5 * torch.randn(1, count + 1, *size)
    deformation = make_grid(*map_size, geometry)[None] + 0.3 * torch.randn(1, *map_size, 2)
    warp = torch.randn(1, channels, *size), deformation, torch.rand(1, 1, *map_size)

    wanted = operators.warp_occlude(*warp, geometry)
    found = by_body("WarpOcclude", warp, wanted, geometry)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)
    wanted = sparse_motion(small, source, driving, variance, geometry)
    inputs = (small, *source, *driving)
    found = by_body("SparseMotion", inputs, wanted, geometry, variance=variance)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5)
    wanted = compose_motion(logits, source, driving, geometry)
    found = by_body("ComposeMotion", (logits, *source, *driving), wanted, geometry)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_half_features_are_sampled_at_float_coordinates() -> None:
    """Far from the origin a half coordinate would be off by a sixteenth of a pixel."""
    ramp = torch.arange(256.0).expand(1, 1, 4, 256) / 256
    deformation = make_grid(4, 256, "half_pixel")[None] - torch.tensor([0.5 / 256 * 2, 0.0])
    inputs = ramp.half(), deformation, torch.ones(1, 1, 4, 256)
    found = by_body("WarpOcclude", inputs, ramp.half(), "half_pixel")
    assert found.dtype == np.float16
    wanted = (ramp[..., 1:] - 0.5 / 256).half()  # half way between two neighbours
    np.testing.assert_allclose(found[..., 1:], wanted, rtol=0, atol=5e-4)


@pytest.mark.parametrize("determinant", [1e-6, -1e-6, 0.0, 0.1])
def test_singular_jacobians_are_held_and_large_logits_do_not_overflow(determinant: float) -> None:
    """abs(det) is held at 1e-3 and its sign is kept, in the body as in the model."""
    torch.manual_seed(0)
    source = points(1)
    flat = Keypoints(source.value, torch.tensor([[[[0.01, 0.0], [0.0, determinant / 0.01]]]]))
    logits = torch.tensor([300.0, 299.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4).contiguous()
    wanted = compose_motion(logits, source, flat, "half_pixel")
    found = by_body("ComposeMotion", (logits, *source, *flat), wanted, "half_pixel")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", BODIES)
def test_bodies_say_what_a_plugin_needs(name: str) -> None:
    body = function_body(name)
    assert (body.domain, body.name) == ("sonomime", name)
    assert {"plugin_namespace", "plugin_version", "half_pixel"} <= set(body.attribute)
    assert ("align_corners" in body.attribute) == (name != "ComposeMotion")
    assert [(o.domain, o.version) for o in body.opset_import] == [("", OPSET)]
    assert name not in {schema.name for schema in onnx.defs.get_all_schemas()}
    # Nodes of another version are not the plugin's to compute: TensorRT inlines their own bodies.
    plugin = (SOURCES / "plugin.cpp").read_text()
    assert f'getPluginVersion() const noexcept override {{ return "{VERSION}"; }}' in plugin
    # Products of coordinates are left to no matrix unit.
    assert not {"MatMul", "Gemm", "Einsum", "Conv"} & {node.op_type for node in body.node}
