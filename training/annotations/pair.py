"""The JSON of Pair, the tool with which the paper's data was annotated.

``Models.LandMarkListModel.Points`` has a table for each frame: ``ImageIndex`` from 0, and
``LabelList`` with ``Label`` (a number) and ``Position`` [x, y, z]; ``Models.ColorLabelTableModel``
has each label's ``ID`` and its name, ``Desc``. Older files name these models ``class
LandMarkListModel * __ptr64``. A whole number is the centre of a pixel: the tool rounds to find it.
"""

from __future__ import annotations

from pathlib import Path

from .json_node import Node, parse_json
from .marks import Mark, Marks

_POINTS, _NAMES = "LandMarkListModel", "ColorLabelTableModel"


def is_pair(root: Node) -> bool:
    return "Models" in root


def read_pair(file: Path, data: bytes) -> Marks:
    """The points of a Pair file.

    Raises:
        InputError: with the path of what is wrong.
    """
    root = parse_json(file, data)
    models, found = root.at("Models"), Marks(corner=False)
    names = {
        row.at("ID").whole(): row.at("Desc").text() if "Desc" in row else ""
        for row in models.list(_key(models, _NAMES))
    }
    about = root.at("FileInfo") if "FileInfo" in root else root
    video = about.at("Name").text() if "Name" in about else None
    size = None
    if "Width" in about and "Height" in about:
        size = about.at("Width").whole(), about.at("Height").whole()
    model = models.at(_key(models, _POINTS))
    for frame in model.list("Points"):
        index = frame.at("ImageIndex").whole()
        for point in frame.list("LabelList"):
            label = point.at("Label").whole()
            if not names.get(label):
                found.left_out[f"points of the label {label}, which has no name"] += 1
            elif "Position" not in point:
                found.left_out[f"points of {names[label][:40]!r} without a position"] += 1
            else:
                x, y = point.at("Position").point()
                found.add(Mark(point.where, video, index, names[label], x, y, size=size))
    _count_others(root, models, found)
    found.notes.append("frames are counted from 0; whole numbers are the centres of pixels")
    return found


def _key(models: Node, name: str) -> str:
    """The key of a model: that of older files, if it is there."""
    older = f"class {name} * __ptr64"
    return older if older in models else name


def _count_others(root: Node, models: Node, found: Marks) -> None:
    """What the file has besides points."""
    taken = {_key(models, _POINTS), _key(models, _NAMES)}
    for key, model in models.items():
        if key not in taken and isinstance(model.value, list) and model.value:
            found.left_out[f"of {key}, which are no points"] += len(model.value)
    if lines := len(models.at(_key(models, _POINTS)).list("Lines")):
        found.left_out["lines"] += lines
    for poly in root.list("Polys"):
        if shapes := sum("Points" in shape for shape in poly.list("Shapes")):
            found.left_out["contours"] += shapes
