"""Which formats there are, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...runtime.support.errors import InputError
from .coco import is_coco, read_coco
from .cvat import read_cvat
from .json_node import Node, parse_json
from .marks import Marks, Reader, content
from .onuvs import is_onuvs, read_onuvs
from .pair import is_pair, read_pair
from .slicer import is_slicer, read_slicer

READERS: dict[str, Reader] = {
    "pair": read_pair,
    "cvat": read_cvat,
    "coco": read_coco,
    "slicer": read_slicer,
    "onuvs": read_onuvs,
}
_JSON: dict[str, Callable[[Node], bool]] = {
    "pair": is_pair,
    "coco": is_coco,
    "slicer": is_slicer,
    "onuvs": is_onuvs,
}


def read_annotations(file: Path, name: str | None = None) -> tuple[str, Marks]:
    """Format and points of an annotation file.

    Args:
        name: of the format, a key of `READERS`; None: it is recognised by the content.

    Raises:
        InputError: it cannot be read, is damaged, or of another format.
    """
    data = content(file)
    name = name or _recognised(file, data)
    return name, READERS[name](file, data)


def _recognised(file: Path, data: bytes) -> str:
    start = data[:1000].removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<" or start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "cvat"
    if start[:4] == b"PK\x03\x04":
        raise InputError(f"{file}: is a ZIP file", "unpack it and give the file in it")
    if start[:1] not in (b"{", b"["):
        known = ", ".join(READERS)
        raise InputError(f"{file}: neither XML nor JSON", f"formats that are read: {known}")
    root = parse_json(file, data)
    for name, fits in _JSON.items():
        if fits(root):
            return name
    keys = list(root.value)[:5] if isinstance(root.value, dict) else []
    shown = f" (its keys: {', '.join(str(key)[:40] for key in keys)})" if keys else ""
    hint = f"formats that are read: {', '.join(READERS)}; --format tries one of them"
    raise InputError(f"{file}: JSON of no known format{shown}", hint)
