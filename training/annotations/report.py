"""What import and check found, for people and as data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ..data.keypoints import described
from ..data.problems import aligned, problem_lines
from .checking import LabelCheck
from .importing import Imported


def import_lines(done: Imported) -> list[str]:
    """What was read from each file, what was left out and assumed, and what became of the table."""
    said = []
    for one in done.files:
        said.append(f"{one.file} ({one.format})")
        said += [f"  {clip}: labelled frames: {count}" for clip, count in one.clips.items()]
        hidden = f"; not visible: {one.hidden}" if one.hidden else ""
        said.append(f"  points: {described(one.points) or 'none'}{hidden}")
        said += [f"  left out: {count} {what}" for what, count in one.left_out.items()]
        said += [f"  note: {note}" for note in one.notes]
    return [
        *said,
        f"{done.table}: rows added: {done.added}; replaced: {done.replaced}; already there: "
        f"{done.same}; others, not touched: {done.kept}",
    ]


def check_record(done: LabelCheck) -> dict[str, Any]:
    """All of a check, for JSON."""
    clips = [
        {**asdict(clip), "jumps": [jump._asdict() for jump in clip.jumps]} for clip in done.clips
    ]
    return {
        "clips": clips,
        "names": dict(done.names),
        "problems": [problem._asdict() for problem in done.problems],
        "unlabelled": done.unlabelled,
        "shown": done.shown,
    }


def check_lines(done: LabelCheck) -> list[str]:
    """Problems, the names, a line a clip."""
    rows = [["clip", "split", "state", "frames", "labelled", "hidden", "outside", "cropped",
             "jumps", "points"]]  # fmt: skip
    for clip in done.clips:
        counts = (
            clip.frames, clip.labelled, clip.hidden, clip.outside, clip.cropped, len(clip.jumps),
        )  # fmt: skip
        rows.append(
            [clip.name, clip.split, clip.state, *map(str, counts), _points(clip.points, done)]
        )
    return [
        *problem_lines(done.problems),
        "",
        f"names: {described(done.names)}",
        f"clips without labels: {done.unlabelled}",
        "",
        *aligned(rows),
    ]


def _points(points: dict[str, int], done: LabelCheck) -> str:
    """Which names a clip labels, and how often, if not all equally."""
    if points.keys() == done.names.keys() and len(set(points.values())) == 1:
        return f"all {len(points)} in {next(iter(points.values()))}"
    return described(points)
