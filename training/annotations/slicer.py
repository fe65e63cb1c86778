"""The JSON of AnnotateUltrasound, a module of SlicerUltrasound for 3D Slicer.

``frame_annotations`` has for each frame its ``frame_number`` and ``pleura_lines`` and ``b_lines``:
lines of two points in millimetres, LPS or RAS (``coordinate_space``; in older files, which have a
table by frame number, always RAS). This follows annotations.schema.json and
scripts/annotation_merging_workflow.md of github.com/SlicerUltrasound/SlicerUltrasound. Slicer puts
the centre of the first pixel at 0 and x and y along L and P, so a pixel is millimetres over
spacing. Lines have no names there: they are called by their kind and place in the list.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .json_node import Node, parse_json
from .marks import Mark, Marks

_KINDS = {"pleura_lines": "pleura", "b_lines": "b_line"}
_FRAME = {"frame_number", "coordinate_space"}


def is_slicer(root: Node) -> bool:
    return "frame_annotations" in root


def read_slicer(file: Path, data: bytes) -> Marks:
    """The ends of the lines of a file.

    Raises:
        InputError: with the path of what is wrong; lines of several raters.
    """
    root, found = parse_json(file, data), Marks(corner=False, millimetres=True)
    raters: set[str] = set()
    for number, sign, frame in _frames(root.at("frame_annotations")):
        for key, value in frame.items():
            if key in _KINDS:
                for place, line in enumerate(value.list() if value.value else []):
                    mark = Mark(line.where, None, number, f"{_KINDS[key]}_{place + 1}", 0, 0)
                    _add_line(found, line, mark, sign, raters)
            elif key not in _FRAME and value.value:
                found.left_out[f"{key} of a frame"] += 1
    if len(raters) > 1:
        fault = f"has lines of {len(raters)} raters: {', '.join(sorted(raters)[:5])}"
        raise root.error(fault, "give the file of one rater, NAME.RATER.json")
    clip = file.name.removesuffix(".json")  # NAME.json or NAME.RATER.json, beside NAME.dcm
    for rater in [*raters, "adjudication"]:
        clip = clip.removesuffix(f".{rater}")
    found.marks = [mark._replace(video=clip) for mark in found.marks]
    for key in ("AnnotationLabels", "labels"):
        if many := len(root.list(key)):
            found.left_out["labels of the whole clip"] += many
    found.notes.append(
        "lines have no names: they are called by their place in the list, 1 and up, and their ends "
        "start and end as they were drawn; look whether that is the same line in every frame"
    )
    return found


def _frames(node: Node) -> Iterator[tuple[int, int, Node]]:
    """Number, sign of x and y, and table of each frame."""
    if isinstance(node.value, dict):
        for key, frame in node.items():
            yield Node(node.file, key, f"{node.path}, a key").whole(), -1, frame
        return
    for frame in node.list():
        space = frame.at("coordinate_space").text() if "coordinate_space" in frame else "RAS"
        if space not in ("RAS", "LPS"):
            raise frame.error(f"is in the space {space[:40]!r}", "RAS and LPS are read")
        yield frame.at("frame_number").whole(), 1 if space == "LPS" else -1, frame


def _add_line(found: Marks, line: Node, mark: Mark, sign: int, raters: set[str]) -> None:
    if isinstance(line.value, dict):
        if "rater" in line:
            raters.add(line.at("rater").text())
        line = line.at("line").at("points")
    points = line.list()
    if len(points) < 2:
        raise line.error(f"has {len(points)} points where a line has two")
    if len(points) > 2:
        found.left_out["points of a line between its ends"] += len(points) - 2
    for point, end in ((points[0], "start"), (points[-1], "end")):
        x, y = point.point()
        found.add(mark._replace(name=f"{mark.name}_{end}", x=sign * x, y=sign * y))
