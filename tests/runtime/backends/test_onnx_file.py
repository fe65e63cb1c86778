"""ONNX files that are refused before a runtime sees them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from toy_bundle import copy_bundle, replace_file

from sonomime.runtime.backends import open_backend, ort
from sonomime.runtime.backends.onnx_file import check_onnx
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BundleError


def external() -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    onnx.external_data_helper.set_external_data(tensor, "w.bin")
    return tensor


def in_graph(*nodes: onnx.NodeProto, **fields: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **fields)


def model_of(*nodes: onnx.NodeProto, **fields: Any) -> onnx.ModelProto:
    return helper.make_model(in_graph(*nodes, **fields))


def in_function(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    function = helper.make_function("d", "F", [], ["c"], list(nodes), [])
    return helper.make_model(in_graph(), functions=[function])


def constant(tensor: TensorProto) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], value=tensor)


def sparse() -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.arange(4), "i")
    return helper.make_sparse_tensor(external(), indices, [8])


STAGE: Any = types.SimpleNamespace(name="motion", file="motion.onnx")


def looped(operator: str = "Loop", **graphs: onnx.GraphProto) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], ["y"], **(graphs or {"body": in_graph()}))


ELSEWHERE, LOOPS = r"motion\.onnx keeps data in another file", "'motion'.*'{}'"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (model_of(initializer=[external()]), ELSEWHERE),
        (model_of(constant(external())), ELSEWHERE),
        (model_of(sparse_initializer=[sparse()]), ELSEWHERE),
        (in_function(constant(external())), ELSEWHERE),
        (model_of(looped("Loop")), LOOPS.format("Loop")),
        (in_function(looped("Scan")), LOOPS.format("Scan")),
        (
            model_of(looped("If", then_branch=in_graph(), else_branch=in_graph())),
            LOOPS.format("If"),
        ),
        (model_of(looped("SequenceMap")), LOOPS.format("SequenceMap")),
        (model_of(helper.make_node("Loop", ["x"], ["y"])), LOOPS.format("Loop")),
        (
            model_of(helper.make_node("F", [], ["y"], body=[in_graph(looped())])),
            LOOPS.format("F"),
        ),
    ],
)
def test_external_data_and_operators_that_may_never_end_are_found_wherever_they_hide(
    model: onnx.ModelProto, words: str
) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        check_onnx(model.SerializeToString(), STAGE)
    assert caught.value.hint and caught.value.exit_code == 3


def test_a_key_that_protobuf_would_cut_hides_nothing() -> None:
    # The field 13 (external_data) of a tensor, with a bit set beyond the 32 that protobuf keeps.
    entry = b"\x0a\x08location"
    hidden = varint(13 << 3 | 2 | 1 << 34) + varint(len(entry)) + entry
    tensor = b"\x2a" + varint(len(hidden)) + hidden  # field 5 of the graph
    with pytest.raises(BundleError, match="damaged"):
        check_onnx(b"\x3a" + varint(len(tensor)) + tensor, STAGE)


def varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


@pytest.mark.parametrize(
    "content",
    [b"", b"text\n", b"\x3a\xff\xff\x03", b"ORTM" * 8, b"\xff" * 30,
     model_of(looped()).SerializeToString()],
)  # fmt: skip
def test_no_session_is_made_of_them(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    spoiled = copy_bundle(toy_bundle, tmp_path / "spoiled")
    replace_file(spoiled, "motion.onnx", content)
    session = ort.ort.InferenceSession

    def watched(given: bytes, *arguments: Any, **options: Any) -> Any:
        assert given != content
        return session(given, *arguments, **options)

    monkeypatch.setattr(ort.ort, "InferenceSession", watched)
    with pytest.raises(BundleError, match=r"motion\.onnx"):
        open_backend("ort-cpu", Bundle.open(spoiled))
