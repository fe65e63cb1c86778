"""What is wrong with clips and labels, in words: for `data check` and `annotations check`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...runtime.media.frames import Crop
from .keypoints import Labels, outside


class Problem(NamedTuple):
    """What is wrong, or was assumed: its kind, the clip's name ("" for the data as a whole).

    Kinds: "folder" (no clips.csv, a subject in two splits), "no reader", "unread", "damage",
    "still" (one distinct frame), "flat" (black or of one level), "text" (perhaps text in what is
    trained on), "burned in" (the file says so), "label", "same" (content of another clip), "note"
    (the reader assumed or dropped something); of labels alone, "jump" and "name".
    """

    kind: str
    clip: str
    text: str


def label_faults(
    labels: Labels, frames: int, size: tuple[int, int], crop: Crop | None
) -> Iterator[str]:
    """What is wrong with a clip's labels.

    Args:
        frames: how many the clip has.
        size: (width, height) of the whole frame.
        crop: the part that is trained on; None: all.
    """
    missing = sorted(index for index in labels if index >= frames)
    if missing:
        yield f"{len(missing)} labelled frames are not there, the first is {missing[0]}"
    whole = Crop(0, 0, *size)
    beside = outside(whole, labels)
    cropped = [each for each in outside(crop or whole, labels) if each not in set(beside)]
    for found, part in ((beside, "picture"), (cropped, "crop")):
        if found:
            frame, name = found[0]
            first = f"the first is {name} in frame {frame}"
            yield f"{len(found)} labels lie outside of the {part}, {first}"


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """How many problems there are, then a line for each; what many clips share is said once."""
    same: dict[tuple[str, str], list[str]] = defaultdict(list)
    for problem in problems:
        same[problem.kind, problem.text].append(problem.clip)
    said = [f"problems: {len(problems)}"]
    for (kind, text), names in same.items():
        some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        said.append(f"  {kind}: {some}{': ' if some else ''}{text}")
    return said


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table's rows as lines, in columns."""
    rows = [[each or "-" for each in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(each.ljust(width) for each, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
