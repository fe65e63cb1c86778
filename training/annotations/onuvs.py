"""Points by frame: ``{"FRAME": {"NAME": [x, y, anything]}}``, as the data of OnUVS is kept.

FRAME is an index from 0 or a file's name. A whole number is taken as the centre of a pixel.
"""

from __future__ import annotations

from pathlib import Path

from .json_node import Node, parse_json
from .marks import Mark, Marks


def is_onuvs(root: Node) -> bool:
    tables = list(root.value.values()) if isinstance(root.value, dict) else []
    return bool(tables) and all(
        isinstance(table, dict)
        and all(isinstance(place, list | type(None)) for place in table.values())
        for table in tables
    )


def read_onuvs(file: Path, data: bytes) -> Marks:
    """The points of such a file.

    Raises:
        InputError: with the path of what is wrong.
    """
    found = Marks(corner=False)
    for frame, points in parse_json(file, data).items():
        for name, place in points.items():
            if place.value is None:
                found.left_out[f"points of {name[:40]!r} without a position"] += 1
            else:
                found.add(Mark(place.where, None, frame, name, *place.point()))
    found.notes.append("frames given by number are counted from 0; whole numbers are the centres "
                       "of pixels")  # fmt: skip
    return found
