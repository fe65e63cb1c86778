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

FOMM = (*SMALL, "model.geometry=fomm", "model.channels=3")


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
    geometry = 0.0 if "fomm" in request.node.name else 1.0
    for name, model in stages.items():
        versions = {opset.domain: opset.version for opset in model.opset_import}
        assert versions.pop("") == OPSET and set(versions) <= {DOMAIN} and model.ir_version <= 10
        bodies = {function.name: function for function in model.functions}
        assert sorted(bodies) == expected.get(name, [])
        for node in model.graph.node:
            assert node.domain in ("", DOMAIN), name
            if node.domain == DOMAIN:
                given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                assert given["half_pixel"] == geometry
                assert set(given) == set(bodies[node.op_type].attribute)
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
    given = [{a.name: tuple(a.ints) for a in node.attribute} for node in nodes]
    assert {(1, 1, 0, 0), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 1, 0)} <= {
        attributes.get("pads", ()) for attributes in given
    }
    for name in ("motion", "generator"):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        content = stages[name].SerializeToString()
        ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inlined = onnx.load(tmp_path / f"{name}.onnx").graph.node
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
