"""What the ONNX files look like: whole, static, inlinable, and silent about the machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from lively import SMALL, lively_checkpoint

from sonomime.export.graphs import export_stage
from sonomime.runtime.support.errors import ExportError
from sonomime.training.models.keypoints.family import KeypointFamily
from sonomime.training.models.operators import DOMAIN, OPSET


@pytest.fixture(scope="module", params=["ours-ptg", "fomm"])
def small(request: Any, graphs: Any) -> dict[str, onnx.ModelProto]:
    """One preset whole, of the other what differs."""
    made = graphs(request.param, "fp32", *SMALL)
    names = list(made.stages) if request.param == "ours-ptg" else ["generator"]
    return {name: made[name] for name in names}


def test_one_opset_and_no_stranger(small: dict[str, onnx.ModelProto]) -> None:
    for name, model in small.items():
        versions = {opset.domain: opset.version for opset in model.opset_import}
        assert versions.pop("") == OPSET
        assert set(versions) <= {DOMAIN}
        assert model.ir_version <= 10
        assert {node.domain for node in model.graph.node} <= {"", DOMAIN}, name


def test_custom_nodes_have_bodies_and_attributes(small: dict[str, onnx.ModelProto]) -> None:
    expected = {"motion": ["ComposeMotion", "SparseMotion"], "generator": ["WarpOcclude"]}
    for name, model in small.items():
        bodies = {function.name: function for function in model.functions}
        assert sorted(bodies) == expected.get(name, [])
        for node in model.graph.node:
            if node.domain == DOMAIN:
                given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                assert given["half_pixel"] == 1.0
                assert set(given) == set(bodies[node.op_type].attribute)
                assert len(node.input) == len(bodies[node.op_type].input) and all(node.input)


def test_shapes_are_static_data_inside_and_nothing_of_the_machine(
    small: dict[str, onnx.ModelProto],
) -> None:
    for model in small.values():
        for value in (*model.graph.input, *model.graph.output):
            assert all(side.dim_value > 0 for side in value.type.tensor_type.shape.dim)
        for tensor in model.graph.initializer:
            assert tensor.data_location == onnx.TensorProto.DEFAULT and not tensor.external_data
        content = model.SerializeToString()
        for trace in (b".py", str(Path.home()).encode() + b"/", b"site-packages", b"torch."):
            assert trace not in content


def test_same_model_same_bytes(graphs: Any) -> None:
    again = KeypointFamily().chain(lively_checkpoint("ours-ptg", SMALL).model()).stages
    first = graphs("ours-ptg", "fp32", *SMALL)["motion"]
    second = export_stage(next(stage for stage in again if stage.name == "motion"))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(
        deterministic=True
    )


def test_asymmetric_padding_needs_no_node(small: dict[str, onnx.ModelProto]) -> None:
    operations = [node.op_type for node in small["generator"].graph.node]
    assert "Pad" not in operations and "DepthToSpace" in operations
    pads = [
        list(onnx.helper.get_node_attr_value(node, "pads"))
        for node in small["generator"].graph.node
        if node.op_type == "Conv" and any(a.name == "pads" for a in node.attribute)
    ]
    assert {(1, 1, 0, 0), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 0)} <= set(map(tuple, pads))


def test_sessions_have_only_standard_operators(
    small: dict[str, onnx.ModelProto], tmp_path: Path
) -> None:
    for name in {"motion", "generator"} & set(small):
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        content = small[name].SerializeToString()
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inlined = onnx.load(tmp_path / f"{name}.onnx")
        assert DOMAIN not in {node.domain for node in inlined.graph.node}
        assert not {"Range", "Shape", "Expand"} & {node.op_type for node in inlined.graph.node}


def test_half_graph_keeps_motion_in_float(graphs: Any) -> None:
    model = onnx.shape_inference.infer_shapes(graphs("ours-ptg", "fp16", *SMALL)["motion"])
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in model.graph.node:
        if node.domain == DOMAIN:
            # Inputs of the graph are float32 by the contract, so only inner ones are looked up.
            inner = {kinds[name] for name in node.input if name in kinds}
            assert inner <= {onnx.TensorProto.FLOAT}
    weights = {t.data_type for t in model.graph.initializer if len(t.dims) == 4}
    assert onnx.TensorProto.FLOAT16 in weights


def test_a_stage_that_differs_from_its_wire_is_refused() -> None:
    stage = KeypointFamily().chain(lively_checkpoint("ours-ptg", SMALL).model()).stages[1]
    wrong = replace(stage, outputs=tuple(reversed(stage.outputs)))
    with pytest.raises(ExportError, match=stage.name):
        export_stage(wrong)
