"""Marks of annotation files become rows of ``keypoints.csv``: clips and frames are found by what
the tool calls them, pixels are brought to one origin, and the table is written whole."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ...runtime.support.atomic_files import atomic_write_text
from ...runtime.support.errors import ConfigError, InputError
from ...runtime.support.progress import progress
from ...runtime.support.table import NAME_HINT, is_name, read_table, spelling_hint
from ..data.dataset import find_clips
from ..data.keypoints import COLUMNS
from .clips import Clips, Facts
from .formats import read_annotations
from .marks import Mark, Marks

_SAME = 0.002  # pixels: the table has three decimals


class Row(NamedTuple):
    """A row of the table, as text."""

    video: str
    frame: str
    keypoint: str
    x: str
    y: str
    visible: str

    def says(self, other: Row) -> bool:
        """Whether it says the same as another row for the same point."""
        if self.visible != other.visible:
            return False
        pairs = ((self.x, other.x), (self.y, other.y))
        return self.visible == "0" or all(abs(float(a) - float(b)) < _SAME for a, b in pairs)


Key = tuple[str, int, str]
"""A point of the table: clip, index of the frame, name."""
Rows = dict[Key, tuple[Row, str]]
"""New rows, each with where it comes from."""


@dataclass
class Taken:
    """What was taken from one file.

    Attributes:
        clips: frames with points, by clip.
        points: how many there are of each name; `hidden`: how many of them are not visible.
        left_out: what was not taken, and how often it was there.
        notes: what was assumed.
    """

    file: Path
    format: str
    clips: dict[str, int] = field(default_factory=dict)
    points: dict[str, int] = field(default_factory=dict)
    hidden: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass
class Imported:
    """What became of the table: rows added, replaced, the same already, or not touched."""

    table: Path
    files: list[Taken]
    added: int = 0
    replaced: int = 0
    same: int = 0
    kept: int = 0


class Wish(NamedTuple):
    """How files are read.

    Attributes:
        format: of all files; None: by their content.
        video: the clip that they are of; None: what they say.
        rename: new names by old ones.
        corner: whether 0 is the corner of the first pixel; None: as the format has it.
        spacing: (x, y) millimetres a pixel; None: as the clip says.
        replace: whether rows that say something else are replaced.
    """

    format: str | None = None
    video: str | None = None
    rename: Mapping[str, str] = {}
    corner: bool | None = None
    spacing: tuple[float, float] | None = None
    replace: bool = False


def import_annotations(files: Sequence[Path], folder: Path, wish: Wish) -> Imported:
    """Add the points of annotation files to the ``keypoints.csv`` of a dataset folder.

    Raises:
        InputError: a file or the folder cannot be read; a clip, a frame's name or a point's name
            fits nothing; a visible point lies beside the picture; a point is given twice; rows of
            the table say something else.
        ConfigError: a name to be changed is not there.
        OutputError: the table cannot be written. It is then as it was.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "--data takes the folder of the clips")
    clips = Clips(find_clips([folder]).clips)
    taken: list[Taken] = []
    rows: Rows = {}
    read = [(file, *read_annotations(file, wish.format)) for file in files]
    _check_renames(wish.rename, [marks for *_, marks in read])
    for file, name, marks in read:
        one = Taken(file, name)
        _take(one, marks, clips, wish, rows)
        taken.append(one)
    done = Imported(folder / "keypoints.csv", taken)
    if not rows:
        raise InputError(f"no points in {', '.join(map(str, files))}", _why_none(taken))
    every = _merged(done, rows, clips, wish.replace)
    csv.writer(text := io.StringIO(), lineterminator="\n").writerows([COLUMNS, *every])
    atomic_write_text(done.table, text.getvalue())
    return done


def _check_renames(rename: Mapping[str, str], read: Sequence[Marks]) -> None:
    names = {mark.name for marks in read for mark in marks.marks}
    for old in rename:
        if old not in names:
            raise ConfigError(f"--rename: there is no point {old!r}", spelling_hint(old, names))


def _why_none(taken: Sequence[Taken]) -> str:
    reasons = [f"{n} {what}" for one in taken for what, n in one.left_out.items()]
    return f"left out: {'; '.join(reasons)}" if reasons else "label points there first"


def _take(one: Taken, marks: Marks, clips: Clips, wish: Wish, rows: Rows) -> None:
    """Add the marks of a file to the rows."""
    left_out, points = Counter(marks.left_out), Counter[str]()
    frames: dict[str, set[int]] = {}
    said = list(marks.notes)

    def say(text: str) -> None:
        if text not in said:
            said.append(text)

    found = [(mark, *clips.place(mark, wish.video, say)) for mark in marks.marks]
    used = sorted({clip for _, clip, _ in found})
    facts = {name: clips.facts(name) for name in progress(used, label="reading clips")}
    for mark, clip, index in found:
        about = facts[clip]
        if index >= about.frames:
            left_out[f"points of frames beyond the end of {clip} ({about.frames} frames)"] += 1
            continue
        name = wish.rename.get(mark.name, mark.name)
        if not is_name(name):
            raise InputError(f"{mark.where}: the point is called {name[:40]!r}", NAME_HINT)
        if about.stretched and mark.size is None and not marks.millimetres:
            size = "{} x {}".format(*about.size)
            say(f"the pixels of {clip} are not square: points are taken as of frames of {size}")
        x, y = _pixels(mark, clip, about, marks, wish)
        if mark.visible:
            _check_inside(mark, clip, x, y, about.size)
        row = Row(clip, clips.frame(clip, index), name, _text(x), _text(y), str(int(mark.visible)))
        before, where = rows.setdefault((clip, index, name), (row, mark.where))
        if not before.says(row):
            fault = f"{mark.where}: {name!r} of frame {row.frame} of {clip} is elsewhere at {where}"
            raise InputError(fault, "keep one of them, or give the points different names")
        points[name] += 1
        one.hidden += not mark.visible
        frames.setdefault(clip, set()).add(index)
    one.clips = {clip: len(indices) for clip, indices in sorted(frames.items())}
    one.points, one.left_out = dict(sorted(points.items())), dict(left_out)
    one.notes = said


def _pixels(mark: Mark, clip: str, about: Facts, marks: Marks, wish: Wish) -> tuple[float, float]:
    """Where a mark is, in pixels from the centre of the first one."""
    if mark.size is not None and mark.size != about.size:
        theirs, ours = ("{} x {}".format(*size) for size in (mark.size, about.size))
        fault = f"{mark.where}: the file is about pictures of {theirs}, {clip} has {ours}"
        raise InputError(fault, "give the clip that was annotated, with --video if need be")
    spacing = (wish.spacing or about.spacing) if marks.millimetres else (1.0, 1.0)
    if spacing is None:
        fault = f"{mark.where}: places are in millimetres, {clip} does not say how large a pixel is"
        raise InputError(fault, "give --spacing X,Y: millimetres from one pixel to the next")
    from_corner = marks.corner if wish.corner is None else wish.corner
    half = 0.5 if from_corner else 0.0
    return mark.x / spacing[0] - half, mark.y / spacing[1] - half


def _check_inside(mark: Mark, clip: str, x: float, y: float, size: tuple[int, int]) -> None:
    width, height = size
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        fault = f"{mark.where}: {mark.name!r} lies at {x:.6g},{y:.6g}, beside the picture of"
        hint = "move it, or say in the annotation tool that the frame does not show it"
        raise InputError(f"{fault} {width} x {height} of {clip}", hint)


def _text(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}".rstrip("0").rstrip(".")  # + 0.0: no -0


def _merged(done: Imported, rows: Rows, clips: Clips, replace: bool) -> list[Row]:
    """The rows of the table, and after them the new ones; counts what became of them."""
    new = {key: row for key, (row, _) in rows.items()}
    every: list[Row] = []
    other: list[str] = []
    for line, cells in read_table(done.table, COLUMNS) if done.table.exists() else ():
        old = Row(**cells)
        key = old.video, clips.index(old.video, old.frame), old.keypoint
        row = new.pop(key, None)
        if row is None:
            done.kept += 1
        elif row.says(old):
            done.same += 1
        else:
            other.append(f"{line} ({old.keypoint} of frame {old.frame} of {old.video})")
            done.replaced += 1
        every.append(old if row is None or row.says(old) else row)
    if other and not replace:
        fault = f"{done.table}: {len(other)} rows say something else, the first is line {other[0]}"
        raise InputError(fault, "--replace takes the new ones; nothing has been changed")
    done.added = len(new)
    return [*every, *new.values()]
