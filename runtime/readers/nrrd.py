"""NRRD files (.nrrd, .nhdr), sequences of 3D Slicer and PLUS included. pynrrd parses the headers.

Formats: https://teem.sourceforge.net/nrrd/format.html and
https://slicer.readthedocs.io/en/latest/developer_guide/modules/sequences.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..support.errors import InputError, UnsupportedFormat
from .data_files import Part, data_files
from .reading import Reading
from .stack import MAX_HEADER, Stack, StackSource, millimetres

# Without "signed", "int" behind another word, and "_t".
_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "unsigned char": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "unsigned": "u4", "uint32": "u4",
    "float": "f4", "double": "f8",
}  # fmt: skip
_COLOURS = ("rgb-color", "rgba-color", "3-color", "4-color", "vector", "3-vector", "4-vector")
_MM = {"": 1.0, "mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001}
_INDEX = re.compile(r"axis \d+ index values")
_SECONDS = {"s": 1.0, "ms": 0.001}


def open_nrrd(path: Path, how: Reading, channels: int) -> StackSource:
    """The frames of an NRRD file: pictures over time, or the slices of a volume."""
    return StackSource(read_nrrd(path), how, channels)


def read_nrrd(path: Path) -> Stack:
    """What a header says.

    Raises:
        InputError: it is damaged or cut off, or names files that it must not.
        UnsupportedFormat: what it describes is no clip of pictures, or pynrrd is not installed.
    """
    header, more, end = _header(path)
    kind = str(header.get("type", "")).removeprefix("signed ").removesuffix("_t")
    kind = kind if kind == "int" else kind.removesuffix(" int")
    if kind not in _TYPES:
        raise UnsupportedFormat(f"{path} has values of the type {kind[:40]!r}", "convert it")
    encoding = str(header.get("encoding", "")).lower()
    if encoding not in ("raw", "gzip", "gz"):
        hint = "save it as raw or gzip"
        raise UnsupportedFormat(f"{path} has the encoding {encoding[:40]!r}", hint)
    order = {"little": "<", "big": ">"}.get(str(header.get("endian", "")).lower())
    if order is None and not _TYPES[kind].endswith("1"):
        raise InputError(f"{path} does not say in which order its bytes are", "add endian: little")
    skip = int(_first(header, "byte skip", "byteskip", 0))
    lines = int(_first(header, "line skip", "lineskip", 0))
    packed = encoding != "raw"
    if skip < (0 if packed else -1) or lines < 0 or (packed and skip):
        hint = "lines can be skipped, and bytes where the data are raw; -1: the data come last"
        raise UnsupportedFormat(f"{path} skips {lines} lines and {skip} bytes", hint)
    named = _first(header, "data file", "datafile", None)
    parts = [Part(path, end)] if named is None else data_files(path, named, more, 0)
    sizes = [int(size) for size in header.get("sizes", ())]
    colour, time = _axes([str(kind).lower() for kind in header.get("kinds", ())], sizes)
    stack = Stack(
        path=path,
        kind="NRRD",
        dtype=np.dtype((order or "<") + _TYPES[kind]),
        sizes=sizes,
        colour=colour,
        time=time,
        parts=[Part(part.path, -1 if skip < 0 else _behind(part, lines) + skip) for part in parts],
        packed=packed,
        fields={key: text for key, text in header.items() if isinstance(text, str)},
    )
    if colour is not None and "kinds" not in header:
        stack.notes.append(f"its first axis, of {sizes[0]}, is taken as colour")
    _measure(stack, header)
    return stack


def _axes(kinds: list[str], sizes: list[int]) -> tuple[int | None, int | None]:
    """Which axes are colour and time."""
    kinds = kinds if len(kinds) == len(sizes) else ["???"] * len(sizes)
    colour = next((axis for axis, kind in enumerate(kinds) if kind in _COLOURS), None)
    lists = [axis for axis, kind in enumerate(kinds) if kind in ("list", "time")]
    if colour is None and len(lists) > 1 and sizes[lists[0]] in (1, 3, 4):
        colour = lists.pop(0)
    if colour is None and kinds[:1] in (["???"], ["none"]) and sizes[0] in (1, 3, 4):
        colour = 0  # too few to be a side of a picture
    return colour, lists[0] if lists else None


def _measure(stack: Stack, header: Mapping[str, Any]) -> None:
    """Distances of pixels, and times of frames."""
    x, y, time = stack.across, stack.down, stack.time
    count = len(stack.sizes)
    units = list(header.get("units", ()))
    units = units if len(units) == count else [""] * count
    directions = np.asarray(header.get("space directions", ()), float)
    if directions.ndim == 2 and len(directions) == count:
        steps = np.linalg.norm(directions, axis=1)
        unit = "".join({*header.get("space units", ("",))})  # several make an unknown one
    else:
        steps, unit = np.asarray(header.get("spacings", ()), float), units[x]
    if len(steps) == count and unit in _MM and units[x] == units[y]:
        stack.spacing = millimetres([steps[x] * _MM[unit], steps[y] * _MM[unit]])
    values = next((text for key, text in stack.fields.items() if _INDEX.fullmatch(key)), None)
    labels = list(header.get("labels", ()))
    if values is None or time is None or len(labels) != count or labels[time].lower() != "time":
        return
    try:
        seconds = [float(word) * _SECONDS[units[time]] for word in values.split()]
    except (KeyError, ValueError):
        seconds = []
    if len(seconds) == stack.frames:
        stack.seconds = seconds
    else:
        stack.notes.append("the times of its frames are not in s or ms, or too few: not used")


def _header(path: Path) -> tuple[dict[str, Any], list[str], int]:
    """The fields; the lines that follow, where they name files; the header's bytes."""
    try:
        import nrrd
    except ImportError as cause:
        hint = 'pip install "sonomime[nrrd]"'
        raise UnsupportedFormat(f"{path} is NRRD, and pynrrd is not installed", hint) from cause
    lines: list[bytes] = []
    more: list[str] = []
    with path.open("rb") as file:
        while (line := file.readline(MAX_HEADER)).strip() and file.tell() <= MAX_HEADER:
            lines.append(line)
            if re.match(rb"data ?file:\s*LIST", line):
                more = file.read(MAX_HEADER).decode("utf-8", "replace").splitlines()
                break
        end = file.tell()
    try:
        header = dict(nrrd.read_header(lines))
    except Exception as error:  # pynrrd raises many kinds of errors on a damaged header
        fault = f"cannot read the header of {path}: {str(error)[:200] or type(error).__name__}"
        raise InputError(fault, "it may be damaged or cut off: copy it again") from error
    return header, more, end


def _first(header: Mapping[str, Any], one: str, other: str, default: Any) -> Any:
    """A field that has two spellings."""
    return header.get(one, header.get(other, default))


def _behind(part: Part, lines: int) -> int:
    """Where the data begin that have so many lines of text before them."""
    if not lines or not part.path.is_file():
        return part.skip
    with part.path.open("rb") as file:
        file.seek(part.skip)
        for _ in range(lines):
            if not file.readline():
                break
        return file.tell()
