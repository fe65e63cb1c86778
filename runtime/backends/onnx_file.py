"""Read a stage's ONNX file and refuse what must not reach a runtime, without the onnx package.

A tensor's data may lie in another file: ONNX Runtime would follow it, out of the bundle through a
hard link too. Operators that run a subgraph (Loop, Scan, If) may never end, and nothing but kill -9
stops them then. No exporter of ours writes either.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..bundle.bundle import Bundle
from ..bundle.manifest import StageFile
from ..support.errors import BundleError

# Which fields of which message lead to a TensorProto or a NodeProto: {message: {field: message}}.
# Numbers from onnx.proto3; they never change.
_LEADS = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 10: "Tensor", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
_MODEL_GRAPH, _MODEL_FUNCTIONS, _OP_TYPE, _SUBGRAPHS = 7, 25, 4, (6, 11)
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_REFUSED = (b"Loop", b"Scan", b"If")


def read_stage(bundle: Bundle, stage: StageFile) -> bytes:
    """A stage's ONNX file, for a runtime to open: plain operators, and all data in it.

    Raises:
        BundleError: as `Bundle.read`, or the file is not so; the message names it, and the stage
            where an operator is refused.
    """
    content = bundle.read(stage.file)
    try:
        if not _check(memoryview(content), "Model", stage, ""):
            raise ValueError("it has no graph")
    except (IndexError, ValueError):
        raise BundleError(f"{stage.file} is not an ONNX file, or is damaged") from None
    return content


def has_functions(content: bytes) -> bool:
    """Whether an ONNX file brings operators of its own, with their bodies."""
    return any(number == _MODEL_FUNCTIONS for number, _ in _fields(memoryview(content)))


def _check(data: memoryview, message: str, stage: StageFile, operator: str) -> bool:
    """Check a message and all below it; ValueError for a malformed one. Returns whether a model has
    a graph."""
    refused = has_graph = False
    for number, value in _fields(data):
        has_graph |= number == _MODEL_GRAPH
        if message == "Node" and number == _OP_TYPE and isinstance(value, memoryview):
            operator = bytes(value).decode(errors="replace")
            refused |= bytes(value) in _REFUSED  # any of them, should there be several
        elif message == "Attribute" and number in _SUBGRAPHS:
            refused = True
        elif message == "Tensor" and (
            number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value)
        ):
            hint = "export it again with its weights in the one file"
            raise BundleError(f"{stage.file} keeps data in another file, which is refused", hint)
    if refused:
        raise BundleError(
            f"{stage.file}: stage {stage.name!r} uses the operator {operator!r}, which runs a "
            "subgraph and may never end, so it is refused",
            "use a bundle that `sonomime export` wrote",
        )
    # Read twice, not kept: a file of millions of empty fields must not fill the memory.
    for number, value in _fields(data):
        if number in _LEADS[message] and isinstance(value, memoryview):
            _check(value, _LEADS[message][number], stage, operator)
    return has_graph


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: numbers as they are, the rest as their bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        if key >> 32:  # other readers cut it to 32 bits, and would see another field than we do
            raise ValueError("a key is too long")
        kind = key & 7
        if kind == 0:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = _varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("unknown wire type")
        if length > len(data) - position:
            raise ValueError("a field reaches beyond the end")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")
