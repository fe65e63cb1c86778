"""Does an ONNX file keep to itself? A walk over its protobuf, without the onnx package.

An ONNX file may say that a tensor's data lies in another file, and ONNX Runtime would follow it,
out of the folder through a hard link too. A bundle's files are whole in themselves, so such a file
is refused before any runtime sees it.
"""

from __future__ import annotations

from ..support.errors import BundleError

# Which fields of which message lead to a TensorProto: {message: {field number: message}}.
# Numbers from onnx.proto3; they never change.
_MESSAGES = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse",
    },
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}  # fmt: skip
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_MAX_DEPTH = 64


def check_onnx(content: bytes, name: str) -> None:
    """Check that `content` is a protobuf that names no external data.

    Raises:
        BundleError: it is not, or it does; `name` is the file's name for the message.
    """
    try:
        has_graph = _walk(memoryview(content), "Model", name, 0)
    except (IndexError, ValueError):
        raise BundleError(f"{name} is not an ONNX file, or is damaged") from None
    if not has_graph:
        raise BundleError(f"{name} is not an ONNX file: it has no graph")


def _walk(data: memoryview, message: str, name: str, depth: int) -> bool:
    """Whether the message had any field that leads on. Raises ValueError for a malformed one."""
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    leads, found = _MESSAGES[message], False
    position, end = 0, len(data)
    while position < end:
        key, position = _varint(data, position)
        if key >> 32:  # other readers cut it to 32 bits, and would see another field than we do
            raise ValueError("a key is too long")
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, position = _varint(data, position)
            external = message == "Tensor" and field == _DATA_LOCATION and value != 0
        elif kind == 2:
            length, position = _varint(data, position)
            if length > end - position:
                raise ValueError("a field reaches beyond the end")
            external = message == "Tensor" and field == _EXTERNAL_DATA
            if field in leads:
                found = True
                _walk(data[position : position + length], leads[field], name, depth + 1)
            position += length
        elif kind in (1, 5):
            external = False
            position += 8 if kind == 1 else 4
        else:
            raise ValueError("unknown wire type")
        if external:
            hint = "export it again with its weights in the one file"
            raise BundleError(f"{name} keeps data in another file, which is refused", hint)
    if position != end:
        raise ValueError("a field reaches beyond the end")
    return found


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
