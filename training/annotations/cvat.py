"""CVAT for video 1.1: XML of tracks (docs.cvat.ai, "XML annotation format", "Interpolation").

A track of points has ``<points frame outside occluded keyframe points="x,y">`` for frames of the
whole video; a track of skeletons has ``<skeleton frame keyframe>`` around ``<points label ...>``.
CVAT counts pixels from the picture's CORNER: (0, 0) to (width, height), so the centre of the first
pixel is (0.5, 0.5).

``outside`` ends a track, and CVAT writes it after a point of a single frame too, so nothing is
known from there on. Of a point of a skeleton whose other points are shown it says that the frame
does not show it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from ...runtime.support.errors import InputError
from ...runtime.support.printable import printable
from .marks import Mark, Marks

MOST_FRAMES = 1_000_000
_DEEPEST = 32
_TRACK, _SKELETON = "annotations/track", "annotations/track/skeleton"
_SHAPES = ("box", "polygon", "polyline", "ellipse", "cuboid", "mask")
_EXPORT = "export the task from CVAT as `CVAT for video 1.1`"


class _Row(NamedTuple):
    """A point of a track in a frame."""

    line: int
    frame: int
    x: float
    y: float
    outside: bool
    occluded: bool
    keyframe: bool


def read_cvat(file: Path, data: bytes) -> Marks:
    """The points of a CVAT file. Between two frames of a track they are interpolated linearly.

    Raises:
        InputError: with the line of what is wrong; a document type, since it could be a bomb.
    """
    parser = expat.ParserCreate()
    reading = _Reading(file, parser)
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.text
    parser.StartDoctypeDeclHandler = reading.refuse_doctype
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        what = expat.ErrorString(error.code)
        raise InputError(f"{file}:{error.lineno}: not XML ({what})", _EXPORT) from error
    except (LookupError, ValueError) as error:  # an unknown encoding
        raise InputError(f"{file}: not XML ({printable(str(error))[:80]})", _EXPORT) from error
    return reading.marks()


class _Track:
    """One track: its points by name, those of skeletons apart."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.points: defaultdict[tuple[str, bool], list[_Row]] = defaultdict(list)
        self.others: set[str] = set()  # shapes that are not points

    def shown(self) -> set[int]:
        """Frames in which a point of its skeleton is shown."""
        rows = [row for (_, joint), points in self.points.items() if joint for row in points]
        return {row.frame for row in rows if not row.outside}


class _Reading:
    """Takes what the parser finds."""

    def __init__(self, file: Path, parser: expat.XMLParserType) -> None:
        self._file, self._parser = file, parser
        self._open: list[str] = []
        self._about: dict[str, str] = {}  # texts in <meta>, by the last two tags
        self._tasks = 0
        self._tracks: list[_Track] = []
        self._skeleton: tuple[int, str] | None = None  # frame and keyframe of the open one
        self._found = Marks(corner=True)

    # -- what the parser finds ---------------------------------------------------------------------

    def refuse_doctype(self, *_: object) -> None:
        raise self._error("has a document type (DOCTYPE), which CVAT does not write", "remove it")

    def start(self, tag: str, given: dict[str, str]) -> None:
        if not self._open and tag != "annotations":
            raise self._error(f"the file begins with <{printable(tag)[:40]}>, not <annotations>")
        if len(self._open) == _DEEPEST:
            raise self._error("is nested too deeply")
        inside = "/".join(self._open)
        self._open.append(tag)
        if inside.startswith("annotations/meta"):
            self._tasks += tag == "task"
            if self._tasks > 1:
                raise self._error("holds several tasks", "export each task by itself")
        elif tag == "image":
            raise self._error("lists images: it is `CVAT for images`")
        elif tag == "track" and inside == "annotations":
            self._tracks.append(_Track(self._given(given, "label")))
        elif inside == _TRACK and tag == "points":
            self._take(self._tracks[-1].label, False, self._index(given), given)
        elif inside == _TRACK and tag == "skeleton":
            self._skeleton = self._index(given), given.get("keyframe", "1")
        elif inside == _SKELETON and tag == "points" and self._skeleton is not None:
            frame, keyframe = self._skeleton
            self._take(self._given(given, "label"), True, frame, {"keyframe": keyframe, **given})
        elif inside in (_TRACK, _SKELETON) and tag in _SHAPES:
            self._tracks[-1].others.add(tag)
        elif tag == "attribute" and inside.startswith(_TRACK):
            self._found.left_out["attributes of points"] += 1
        elif tag not in ("annotations", "version", "meta"):
            self._found.left_out[f"<{printable(tag)[:40]}>"] += 1

    def text(self, text: str) -> None:
        if self._open[1:2] == ["meta"]:
            key = "/".join(self._open[-2:])[:100]
            self._about[key] = (self._about.get(key, "") + text)[:300]

    def end(self, tag: str) -> None:
        self._open.pop()

    def _take(self, name: str, joint: bool, frame: int, given: dict[str, str]) -> None:
        places = self._given(given, "points").split(";")
        if len(places) > 1:
            self._found.left_out[f"shapes of {len(places)} points, which have no names"] += 1
            return
        try:
            x, y = map(float, places[0].split(","))
        except ValueError:
            x = y = math.nan
        if not (abs(x) < 1e9 and abs(y) < 1e9):
            raise self._error(f"points is {places[0][:40]!r}, not x,y")
        outside, occluded = (given.get(flag) == "1" for flag in ("outside", "occluded"))
        keyframe, line = given.get("keyframe") != "0", self._parser.CurrentLineNumber
        row = _Row(line, frame, x, y, outside, occluded, keyframe)
        self._tracks[-1].points[name, joint].append(row)

    def _given(self, given: dict[str, str], key: str) -> str:
        if key not in given:
            raise self._error(f"<{self._open[-1]}> has no {key}")
        return given[key]

    def _index(self, given: dict[str, str]) -> int:
        text = self._given(given, "frame")
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < MOST_FRAMES):
            raise self._error(f"frame is {text[:40]!r}, not a number from 0")
        return int(text)

    def _error(self, fault: str, hint: str = _EXPORT) -> InputError:
        return InputError(f"{self._file}:{self._parser.CurrentLineNumber}: {fault}", hint)

    # -- what it means -----------------------------------------------------------------------------

    def marks(self) -> Marks:
        """The points of all tracks."""
        about, found = {key: text.strip() for key, text in self._about.items()}, self._found
        if about.get("task/flipped", about.get("job/flipped", "")).lower() == "true":
            fault = f"{self._file}: its pictures were turned upside down in CVAT"
            raise InputError(fault, "annotate the clip as it is")
        names = ("meta/source", "task/source", "job/source", "task/name")
        video = next((about[name] for name in names if about.get(name)), None)
        sides = [about.get(f"original_size/{side}", "") for side in ("width", "height")]
        known = all(side.isascii() and side.isdigit() and len(side) < 7 for side in sides)
        size = (int(sides[0]), int(sides[1])) if known else None
        between = hidden = 0
        for track in self._tracks:
            for other in sorted(track.others):
                found.left_out[f"tracks with {other} shapes, which are no points"] += 1
            shown = track.shown()
            for (name, joint), rows in track.points.items():
                rows.sort(key=lambda row: row.frame)
                for row, following in zip(rows, [*rows[1:], None], strict=True):
                    where = f"{self._file}:{row.line}"
                    mark = Mark(where, video, row.frame, name, row.x, row.y, True, size)
                    if row.outside and not (joint and row.frame in shown):
                        found.left_out["ends of tracks (outside): nothing is known there"] += 1
                        continue
                    found.add(mark._replace(visible=not (row.outside or row.occluded)))
                    hidden += row.occluded
                    between += not row.keyframe
                    if following is None or row.outside or following.outside:
                        continue
                    for frame, x, y in _filled(row, following):
                        found.add(Mark(where, video, frame, name, x, y, not row.occluded, size))
                        between += 1
        if between:
            found.notes.append(f"{between} points lie between keyframes: interpolated linearly")
        if hidden:
            found.notes.append(f"{hidden} points are occluded: not visible in the table")
        found.notes.append("0 is the corner of the picture: 0.5 is taken off")
        return found


def _filled(row: _Row, following: _Row) -> Iterator[tuple[int, float, float]]:
    """Frame, x and y between two rows, linearly."""
    count = following.frame - row.frame
    for frame in range(row.frame + 1, following.frame):
        share = (frame - row.frame) / count
        x, y = (a + share * (b - a) for a, b in ((row.x, following.x), (row.y, following.y)))
        yield frame, x, y
