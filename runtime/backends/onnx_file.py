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
_MODEL_GRAPH, _OP_TYPE, _SUBGRAPHS = 7, 4, {6, 11}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_REFUSED = {"Loop", "Scan", "If"}


def read_stage(bundle: Bundle, stage: StageFile) -> bytes:
    """A stage's ONNX file, for a runtime to open.

    Raises:
        BundleError: as `Bundle.read` and `check_onnx`.
    """
    content = bundle.read(stage.file)
    check_onnx(content, stage)
    return content


def check_onnx(content: bytes, stage: StageFile) -> None:
    """Check that `content` is an ONNX file of plain operators that holds all its data.

    Raises:
        BundleError: it is not; the message names the file, and the stage where an operator is
            refused.
    """
    try:
        if _MODEL_GRAPH not in _walk(memoryview(content), "Model", stage, ""):
            raise ValueError("it has no graph")
    except (IndexError, ValueError):
        raise BundleError(f"{stage.file} is not an ONNX file, or is damaged") from None


def _walk(data: memoryview, message: str, stage: StageFile, operator: str) -> set[int]:
    """Check a message and all below it; the numbers of its fields. Raises ValueError for a
    malformed one."""
    numbers: set[int] = set()
    names: set[str] = set()
    outside = False
    for number, value in _fields(data):
        numbers.add(number)
        if message == "Node" and number == _OP_TYPE and isinstance(value, memoryview):
            names.add(bytes(value).decode(errors="replace"))
        outside |= number == _EXTERNAL_DATA or (number == _DATA_LOCATION and bool(value))
    if message == "Tensor" and outside:
        hint = "export it again with its weights in the one file"
        raise BundleError(f"{stage.file} keeps data in another file, which is refused", hint)
    operator = " or ".join(sorted(names)) or operator
    refused = not names.isdisjoint(_REFUSED)
    if message == "Attribute":
        refused = not numbers.isdisjoint(_SUBGRAPHS)
    if refused:
        raise BundleError(
            f"{stage.file}: stage {stage.name!r} uses the operator {operator!r}, which runs a "
            "subgraph and may never end, so it is refused",
            "use a bundle that `sonomime export` wrote",
        )
    # Read twice, not kept: a file of millions of empty fields must not fill the memory.
    for number, value in _fields(data):
        if number in _LEADS[message] and isinstance(value, memoryview):
            _walk(value, _LEADS[message][number], stage, operator)
    return numbers


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of a protobuf message: numbers as they are, the rest as their bytes."""
    position, end = 0, len(data)
    while position < end:
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
        if length > end - position:
            raise ValueError("a field reaches beyond the end")
        yield key >> 3, data[position : position + length]
        position += length


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
