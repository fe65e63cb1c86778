"""ONNX files that are refused, most before a runtime sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import blob, copy_bundle, replace_file

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend, ort
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError, BundleError


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    return tensor


def in_graph(*nodes: onnx.NodeProto, **fields: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **fields)


def model_of(*nodes: onnx.NodeProto, **fields: Any) -> bytes:
    return bytes(helper.make_model(in_graph(*nodes, **fields)).SerializeToString())


def in_function(*nodes: onnx.NodeProto) -> bytes:
    function = helper.make_function("d", "F", [], ["c"], list(nodes), [])
    return bytes(helper.make_model(in_graph(), functions=[function]).SerializeToString())


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def sparse() -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    return helper.make_sparse_tensor(external(), indices, [8])


def looped(operator: str = "Loop", **graphs: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], ["y"], **(graphs or {"body": in_graph()}))


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, as protobuf has it."""
    data = b""
    for value in (number << 3 | 2, len(content)):
        while value > 0x7F:
            data += bytes([value & 0x7F | 0x80])
            value >>= 7
        data += bytes([value])
    return data + content


# The field 13 (external_data) of a tensor, with a bit set beyond the 32 that protobuf keeps.
HIDDEN = field(7, field(5, field(13 | 1 << 31, field(1, b"location"))))
# A tensor that says "elsewhere" (data_location 1) and not where; a node of two operators.
PLACELESS = field(7, field(5, b"\x70\x01"))
TWICE = field(7, field(1, field(4, b"Loop") + field(4, b"Add")))
BRANCHES = {"then_branch": in_graph(), "else_branch": in_graph()}
ELSEWHERE, DAMAGED = "keeps data in another file", "damaged"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (model_of(initializer=[external()]), ELSEWHERE),
        (model_of(constant(external())), ELSEWHERE),
        (model_of(sparse_initializer=[sparse()]), ELSEWHERE),
        (in_function(constant(external())), ELSEWHERE),
        (PLACELESS, ELSEWHERE),
        (TWICE, "'motion'"),
        (model_of(looped("Loop")), "'motion'.*'Loop'"),
        (in_function(looped("Scan")), "'motion'.*'Scan'"),
        (model_of(looped("If", **BRANCHES)), "'motion'.*'If'"),
        (model_of(looped("SequenceMap")), "'motion'.*'SequenceMap'"),
        (model_of(helper.make_node("Loop", ["x"], ["y"])), "'motion'.*'Loop'"),
        (model_of(looped("F", body=[in_graph(looped())])), "'motion'.*'F'"),
        (HIDDEN, DAMAGED),
        (b"", DAMAGED),
        (b"text\n", DAMAGED),
        (b"\x3a\xff\xff\x03", DAMAGED),
        (b"ORTM" * 8, DAMAGED),
        (b"\xff" * 30, DAMAGED),
    ],
)
def test_external_data_and_operators_that_may_never_end_are_found_wherever_they_hide(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, words: str
) -> None:
    spoiled = copy_bundle(toy_bundle, tmp_path / "spoiled")
    replace_file(spoiled, "motion.onnx", content)
    session = ort.ort.InferenceSession

    def watched(given: bytes, *arguments: Any, **options: Any) -> Any:
        assert given != content, "a session was made of it"
        return session(given, *arguments, **options)

    monkeypatch.setattr(ort.ort, "InferenceSession", watched)
    with pytest.raises(BundleError, match=rf"motion\.onnx.*{words}") as caught:
        open_backend("ort-cpu", Bundle.open(spoiled))
    assert caught.value.exit_code == 3 and (caught.value.hint or words == DAMAGED)


def rename(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "deformed"
    for node in model.graph.node:
        node.output[:] = ["deformed" if name == "deformation" else name for name in node.output]


def open_up(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def unknown_op(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOp"


def shrink(model: onnx.ModelProto) -> None:
    """Give an output a length that only the data tells: 64 times the mean of a map of ones,
    less 1."""
    graph = model.graph
    for node in graph.node:
        node.output[:] = ["whole" if name == "deformation" else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "one"))
    nodes = [
        helper.make_node("ReduceMean", ["occlusion_map"], ["mean"], keepdims=0),
        helper.make_node("Cast", ["mean"], ["whole_mean"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["whole_mean", "one"], ["length"]),
        helper.make_node("Add", ["length", "one"], ["length2"]),
        helper.make_node("Slice", ["whole", "one", "length2", "one"], ["deformation"]),
    ]
    graph.node.extend(nodes)


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (rename, BundleError, r"motion\.onnx: output 'deformation' is absent in the file"),
        (open_up, BundleError, r"motion\.onnx: input 'source_small' is .*\['N', 1, 64, 64\]"),
        (unknown_op, BackendError, "cannot open stage 'motion'"),
        # Buffers are bound by address: nothing may be written past, or left stale, in silence.
        (shrink, BackendError, "stage 'motion' failed"),
    ],
)
def test_a_stage_that_is_not_what_the_manifest_says(
    toy_bundle: Path, tmp_path: Path, change: Callable[[onnx.ModelProto], Any], kind: Any,
    words: str,
) -> None:  # fmt: skip
    spoiled = copy_bundle(toy_bundle, tmp_path / "spoiled")
    model = onnx.load(spoiled / "motion.onnx")
    change(model)
    replace_file(spoiled, "motion.onnx", model.SerializeToString())
    with pytest.raises(kind, match=words) as caught, Animator.open(spoiled, "cpu") as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0))
    assert change is not unknown_op or (caught.value.hint and caught.value.exit_code == 4)
