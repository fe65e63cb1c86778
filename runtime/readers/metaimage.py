"""MetaImage files (.mha, .mhd), as PLUS, 3D Slicer and ITK write them.

The header is text, `Key = value` in each line; the last key names the data. Format:
https://itk.org/Wiki/MetaIO/Documentation
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np

from ..support.errors import InputError, UnsupportedFormat
from .data_files import Part, data_files
from .reading import Reading
from .stack import MAX_HEADER, Stack, StackSource, millimetres

_TYPES = {
    "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_USHORT": "u2", "MET_SHORT": "i2",
    "MET_UINT": "u4", "MET_INT": "i4", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_MAX_LINE = 1 << 16
_N = TypeVar("_N", int, float)


def open_metaimage(path: Path, how: Reading, channels: int) -> StackSource:
    """The frames of a MetaImage file: pictures over time, or the slices of a volume."""
    return StackSource(read_metaimage(path), how, channels)


def read_metaimage(path: Path) -> Stack:
    """What a header says.

    Raises:
        InputError: it is damaged or cut off, or names files that it must not.
        UnsupportedFormat: what it describes is no clip of pictures.
    """
    fields, more, end = _fields(path)
    kind = fields.get("ElementType", "")
    if kind not in _TYPES:
        hint = f"these are read: {', '.join(_TYPES)}"
        raise UnsupportedFormat(f"{path} has values of the type {kind[:40]!r}", hint)
    if "BinaryData" in fields and not _is_true(fields, "BinaryData"):
        raise UnsupportedFormat(f"{path} has its values as text", "save it as binary data")
    if (echoes := fields.get("UltrasoundImageType", "")).startswith("RF"):
        fault = f"{path} holds echoes ({echoes[:20]}), not pictures"
        raise UnsupportedFormat(fault, "make B-mode pictures of it first, in PLUS for example")
    big = _is_true(fields, "BinaryDataByteOrderMSB") or _is_true(fields, "ElementByteOrderMSB")
    packed = _is_true(fields, "CompressedData")
    skip = _numbers(path, fields, "HeaderSize", int, "0")[0]
    colours = _numbers(path, fields, "ElementNumberOfChannels", int, "1")[0]
    if skip < (0 if packed else -1):
        hint = "it is the number of bytes before the data; -1, for data at the end, not packed"
        raise InputError(f"{path}: HeaderSize is {skip}", hint)
    data = fields["ElementDataFile"]
    local = data.upper() == "LOCAL"
    stack = Stack(
        path=path,
        kind="MetaImage",
        dtype=np.dtype((">" if big else "<") + _TYPES[kind]),
        sizes=[colours, *_numbers(path, fields, "DimSize", int, "")],
        colour=0,
        time=None,
        parts=[Part(path, skip or end)] if local else data_files(path, data, more, skip),
        packed=packed,
        fields=fields,
    )
    size = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    stack.spacing = millimetres(_numbers(path, fields, size, float, "1 1"))
    _place(stack)
    return stack


def _place(stack: Stack) -> None:
    """How the picture lies. Letters say where its first and second axis lead: to the marked or
    unmarked side of the probe, far from it or near. Tracked frames have their own place in space,
    which a picture does not need."""
    fields = stack.fields
    letters = fields.get("UltrasoundImageOrientation", "").upper() or "MF"
    if letters[:2] not in ("MF", "XX"):
        stack.sideways = letters[:1] in ("F", "N")
        stack.upside_down = "N" in letters[:2]
        done = " and ".join(
            ["its columns are stored as rows"] * stack.sideways
            + ["it is stored upside down"] * stack.upside_down
        )
        done = f"{done}, which is put right" if done else "left and right are as they are stored"
        stack.notes.append(f"the orientation of the picture is {letters[:3]}: {done}")
    turned = fields.get("TransformMatrix", "")
    try:
        values = np.array(turned.split(), float)
    except ValueError:
        values = np.empty(0)
    side = round(values.size**0.5)
    tracked = any(key.startswith("Seq_Frame") for key in fields)
    if turned and not tracked and not np.array_equal(values, np.eye(side).ravel()):
        stack.notes.append("its TransformMatrix is left out: pictures are as they are stored")


def _fields(path: Path) -> tuple[dict[str, str], list[str], int]:
    """Keys and values; the lines after the last key, where those name files; the header's bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE):
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if line.strip() and not (equals and len(line) < _MAX_LINE):
                fault = f"{path}: its header has a line that is no `Key = value`"
                raise InputError(fault, "it may be no MetaImage file, or damaged: copy it again")
            fields[key.strip()] = value.strip()
            end = file.tell()
            if key.strip() == "ElementDataFile":
                lists = value.split()[:1] == ["LIST"]
                more = file.read(MAX_HEADER).decode("utf-8", "replace") if lists else ""
                return fields, more.splitlines(), end
            if end > MAX_HEADER:
                break
    hint = "it may be cut off: copy it again"
    raise InputError(f"{path}: its header does not end with ElementDataFile", hint)


def _is_true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "")[:1] in ("T", "t", "1")


def _numbers(
    path: Path, fields: dict[str, str], key: str, kind: type[_N], default: str
) -> list[_N]:
    text = fields.get(key, default)
    try:
        if found := [kind(word) for word in text.split()]:
            return found
    except ValueError:
        pass
    hint = "the header is damaged: copy the file again"
    raise InputError(f"{path}: {key} is {text[:60]!r}", hint)
