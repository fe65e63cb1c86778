"""Whether clips are fit to train on: what `sonomime data check` finds. Needs no torch."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.contact_sheet import PLAIN, WRONG, Spread, cell, corners, write_sheet
from ...runtime.media.frames import AskedCrop, Crop, Image, crop_image, resize, shows_something
from ...runtime.media.text import find_text
from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import Reading
from ...runtime.support.errors import SonomimeError
from ...runtime.support.progress import progress
from .clip_frames import Repeats
from .dataset import Clip, find_clips
from .problems import Problem, aligned, label_faults, problem_lines

Outline: TypeAlias = NDArray[Any]  # (N, 2) pixels

MOST_SHOWN = 120
"""Clips on a contact sheet."""
_COLUMNS, _SIDE = 6, 240
_LOOK = 8  # frames of a clip, at least, for motion and text
_FLOW = 160  # pixels a side of the pictures whose flow is measured


@dataclass
class Checked:
    """One clip.

    Attributes:
        state: "ok", "damaged" (the frames before the damage count), "unread" or "no reader".
        frames: how many can be read, and `distinct`, how many training keeps of them.
        fps: frames a second; None: not known.
        seconds: from the first frame to the last.
        size: (width, height) of the whole frame.
        crop: the part that is trained on; None: all.
        motion: mean length of the flow (DIS) from the first frame to another, in percent of the
            longer side, and of some evenly spread frames the largest.
        labelled: how many frames have labels.
        text: places in what is trained on where text seems to stand; `text_outside`: elsewhere.
        content: hash of all frames.
    """

    name: str
    path: Path
    subject: str
    group: str
    split: str
    state: str = "ok"
    frames: int = 0
    distinct: int = 0
    fps: float | None = None
    seconds: float = 0.0
    size: tuple[int, int] = (0, 0)
    crop: Crop | None = None
    motion: float = 0.0
    labelled: int = 0
    text: list[Crop] = field(default_factory=list)
    text_outside: list[Crop] = field(default_factory=list)
    content: str = ""


class Total(NamedTuple):
    """Clips, subjects and frames of a group in a split."""

    split: str
    group: str
    clips: int
    subjects: int
    frames: int
    distinct: int


@dataclass(frozen=True)
class Check:
    """All clips in the order of their folders, all problems, totals by split and group."""

    clips: list[Checked]
    problems: list[Problem]
    totals: list[Total]


def check(folders: Sequence[Path], crop: AskedCrop = None, sheet: Path | None = None) -> Check:
    """Read every clip of the folders, of all splits, and draw a frame of each on `sheet`.

    Args:
        crop: overrides the crop of every clip.

    Raises:
        InputError: see `find_clips`; what is wrong with a single clip is a problem instead.
        OutputError: the sheet cannot be written.
    """
    found = find_clips(folders, crop=crop)
    problems = [Problem("folder", "", text) for text in found.warnings]
    clips: list[Checked] = []
    cells: list[Image] = []
    names: dict[str, str] = {}  # of clips, by their content
    every = [*((clip, "") for clip in found.clips), *found.unsupported]
    for clip, reason in progress(every, label="check"):
        one, own, middle, outline = _checked(clip, reason)
        if one.content and (other := names.setdefault(one.content, clip.name)) != clip.name:
            own.append(Problem("same", clip.name, f"shows the same frames as {other}"))
        if sheet is not None and len(cells) < MOST_SHOWN:
            kinds = ", ".join(dict.fromkeys(problem.kind for problem in own))
            said, colour = (f"{clip.name}: {kinds}", WRONG) if own else (clip.name, PLAIN)
            text = one.text + one.text_outside
            cells.append(cell(middle, said, _SIDE, outline, text, colour))
        clips.append(one)
        problems += own
    if sheet is not None:
        write_sheet(sheet, cells, _COLUMNS)
    return Check(clips, problems, _totals(clips))


def _checked(clip: Clip, reason: str) -> tuple[Checked, list[Problem], Image, Outline | None]:
    """A clip; what is wrong with it; its middle frame, and what of that is, or could be, used.

    Args:
        reason: why there is no reader for it; "" where there is one.
    """
    one = Checked(clip.name, clip.path, clip.subject, clip.group, clip.split)
    one.labelled = len(clip.keypoints)
    nothing = np.zeros((_SIDE * 3 // 4, _SIDE), np.uint8)
    if reason:
        one.state = "no reader"
        return one, [Problem("no reader", clip.name, reason)], nothing, None
    spread, repeats, content = Spread[Image](_LOOK), Repeats(), hashlib.blake2b(digest_size=16)
    try:
        # What readers note becomes problems.
        source = open_source(clip.path, Reading(clip.crop, timed=False), announce=False)
        source.warn_of_clutter()
        facts, one.size, one.crop = source.facts, source.facts.stored, source.crop
        for frame in source.frames(whole=True):
            spread.add(frame.image)
            content.update(frame.image)
            one.distinct += repeats.is_new(_part(frame.image, one.crop))
            one.frames, one.seconds = one.frames + 1, frame.timestamp
    except (SonomimeError, OSError) as error:
        one.state = "unread"
        return one, [Problem("unread", clip.name, str(error))], nothing, None
    one.fps, one.content = facts.fps, content.hexdigest()
    parts = [_part(image, one.crop) for image in spread.kept]
    one.motion = _motion(parts)
    for box in find_text(spread.kept):
        (one.text if _meet(box, one.crop) else one.text_outside).append(box)
    own: list[tuple[str, str]] = []
    damage = ""
    if source.damage is not None:
        one.state, damage = "damaged", source.damage.text()
        own.append(("damage", damage))
    if one.distinct < 2:
        own.append(("still", "has one distinct frame only, and a pair needs two"))
    if not any(map(shows_something, parts)):
        own.append(("flat", "is black or of one level"))
    if one.text:
        own.append(("text", f"places that look like text in what is trained on: {len(one.text)}"))
    if facts.burned_in:
        own.append(("burned in", "the file says that it shows who was examined"))
    faults = label_faults(clip.keypoints, one.frames, one.size, one.crop)
    own += [("label", text) for text in faults]
    own += [("note", note) for note in facts.notes if not damage or not note.startswith(damage)]
    outline = source.find_region().outline if one.crop is None else corners(one.crop)
    problems = [Problem(kind, clip.name, text) for kind, text in own]
    return one, problems, spread.kept[len(spread.kept) // 2], outline


def _part(image: Image, crop: Crop | None) -> Image:
    return image if crop is None else crop_image(image, crop)


def _meet(box: Crop, crop: Crop | None) -> bool:
    return crop is None or (
        box.x < crop.x + crop.w and box.x + box.w > crop.x
        and box.y < crop.y + crop.h and box.y + box.h > crop.y
    )  # fmt: skip


def _motion(images: Sequence[Image]) -> float:
    """See `Checked.motion`."""
    height, width = images[0].shape[:2]
    unit = np.array([width, height]) * (100 / _FLOW / max(width, height))
    first, *others = (np.ascontiguousarray(resize(image, _FLOW, _FLOW)) for image in images)
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = (dis.calc(first, other, None) * unit for other in others)
    return max((float(np.hypot(*flow.transpose(2, 0, 1)).mean()) for flow in flows), default=0.0)


def _totals(clips: Sequence[Checked]) -> list[Total]:
    parts: dict[tuple[str, str], list[Checked]] = defaultdict(list)
    for clip in clips:
        parts[clip.split, clip.group].append(clip)
    return [
        Total(
            *key, len(part), len({clip.subject for clip in part}),
            sum(clip.frames for clip in part), sum(clip.distinct for clip in part),
        )
        for key, part in sorted(parts.items())
    ]  # fmt: skip


def lines(done: Check) -> list[str]:
    """All of it for people: problems, a line a clip, totals."""
    rows = [
        ["clip", "split", "group", "subject", "state", "frames", "distinct", "fps", "seconds",
         "size", "crop", "motion%", "labelled", "text", "outside"]
    ]  # fmt: skip
    for clip in done.clips:
        rows.append([
            clip.name, clip.split, clip.group, clip.subject, clip.state, str(clip.frames),
            str(clip.distinct), f"{clip.fps:.4g}" if clip.fps else "-", f"{clip.seconds:.2f}",
            "{}x{}".format(*clip.size), ",".join(map(str, clip.crop or ["-"])),
            f"{clip.motion:.1f}", str(clip.labelled), str(len(clip.text)),
            str(len(clip.text_outside)),
        ])  # fmt: skip
    totals = [[name for name in Total._fields]]
    totals += [[str(value) for value in total] for total in done.totals]
    return [*problem_lines(done.problems), "", *aligned(rows), "", *aligned(totals)]
