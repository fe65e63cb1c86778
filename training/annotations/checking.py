"""Whether labels are fit to learn from: what `sonomime annotations check` finds and draws."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...runtime.media.contact_sheet import write_sheet
from ...runtime.media.frames import AskedCrop, Crop, Image
from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import Reading
from ...runtime.support.errors import InputError, SonomimeError
from ...runtime.support.progress import progress
from ..data.dataset import Clip, find_clips, frame_files
from ..data.keypoints import count_names, outside, slips
from ..data.problems import Problem, label_faults
from .drawing import COLUMNS, Marker
from .jumps import Jump, find_jumps

MOST_SHOWN = 60
"""Labelled frames on a sheet."""


@dataclass
class Labelled:
    """The labels of one clip.

    Attributes:
        state: "ok", "damaged" (the frames before the damage count), "unread".
        frames: how many can be read; `labelled`: how many have labels.
        points: in how many frames each name is labelled; `hidden`: labels that are not visible.
        outside: visible labels beside the picture; `cropped`: those beside the crop alone.
        jumps: suspects, see `jumps.py`.
    """

    name: str
    split: str
    state: str = "ok"
    frames: int = 0
    labelled: int = 0
    points: dict[str, int] = field(default_factory=dict)
    hidden: int = 0
    outside: int = 0
    cropped: int = 0
    jumps: list[Jump] = field(default_factory=list)


@dataclass(frozen=True)
class LabelCheck:
    """All labelled clips, names with their counts, all problems; how many clips have no labels, and
    how many labelled frames are on the sheet."""

    clips: list[Labelled]
    names: Counter[str]
    problems: list[Problem]
    unlabelled: int
    shown: int

    @property
    def labelled(self) -> int:
        """Labelled frames of all clips."""
        return sum(clip.labelled for clip in self.clips)


def check_labels(
    folders: Sequence[Path], crop: AskedCrop = None, sheet: Path | None = None
) -> LabelCheck:
    """Read the labels of all clips of the folders, of all splits, and draw labelled frames.

    Args:
        crop: overrides the crop of every clip.

    Raises:
        InputError: see `find_clips`; no labels. What is wrong with one clip is a problem instead.
        OutputError: the sheet cannot be written.
    """
    found = find_clips(folders, crop=crop)
    every = [clip for clip in found.clips if clip.keypoints]
    problems = [Problem("folder", "", text) for text in found.warnings]
    problems += [
        Problem("no reader", clip.name, reason) for clip, reason in found.unsupported
        if clip.keypoints
    ]  # fmt: skip
    if not every:
        hint = "write a keypoints.csv beside the clips, or `sonomime annotations import`"
        raise InputError(f"no labels in {', '.join(map(str, folders))}", hint)
    names = count_names(clip.keypoints for clip in every)
    problems += [
        Problem("name", "", f"{name!r} ({names[name]}) is perhaps {other!r} ({names[other]})")
        for name, other in slips(names)
    ]
    jumps = find_jumps({clip.name: clip.keypoints for clip in every})
    shown, marker = _shown(every if sheet is not None else [], jumps), Marker(names)
    clips: list[Labelled] = []
    cells: list[Image] = [marker.legend()]
    for clip in progress(every, label="check"):
        own = [jump for jump in jumps if jump.clip == clip.name]
        one, faults, drawn = _read(clip, own, shown.get(clip.name, ()), marker)
        clips.append(one)
        problems += [Problem(kind, clip.name, text) for kind, text in faults]
        cells += drawn
    if sheet is not None:
        write_sheet(sheet, cells, COLUMNS)
    unlabelled = len(found.clips) - len(every)
    return LabelCheck(clips, names, problems, unlabelled, len(cells) - 1)


def _shown(clips: Sequence[Clip], jumps: Sequence[Jump]) -> dict[str, set[int]]:
    """The labelled frames that are drawn, by clip: all; or so many, half of them suspects at most,
    and the others evenly spread."""
    every = [(clip.name, frame) for clip in clips for frame in sorted(clip.keypoints)]
    suspects = list(dict.fromkeys((jump.clip, jump.frame) for jump in jumps))[: MOST_SHOWN // 2]
    others = [each for each in every if each not in set(suspects)]
    count = min(len(others), MOST_SHOWN - len(suspects))
    places = np.linspace(0, len(others) - 1, count).round().astype(int) if others else ()
    frames: dict[str, set[int]] = {}
    for name, frame in [*suspects, *(others[place] for place in places)] if clips else ():
        frames.setdefault(name, set()).add(frame)
    return frames


def _read(
    clip: Clip, jumps: list[Jump], shown: Collection[int], marker: Marker
) -> tuple[Labelled, list[tuple[str, str]], list[Image]]:
    """A clip; what is wrong with its labels; pictures of the frames to be shown."""
    labels = clip.keypoints
    one = Labelled(clip.name, clip.split, labelled=len(labels), jumps=jumps)
    one.points = dict(count_names([labels]))
    places = [at for points in labels.values() for at in points.values()]
    one.hidden = sum(math.isnan(x) for x, _ in places)
    faults: list[tuple[str, str]] = []
    pictures: list[Image] = []
    try:
        source = open_source(clip.path, Reading(clip.crop, timed=False), announce=False)
        size, crop = source.facts.stored, source.crop
        for index, frame in enumerate(source.frames(whole=True)):
            one.frames += 1
            if index in shown:
                suspects = {jump.name for jump in jumps if jump.frame == index}
                said = f"{clip.name} {index}"
                pictures.append(marker.draw(frame.image, said, labels[index], crop, suspects))
    except (SonomimeError, OSError) as error:
        one.state = "unread"
        return one, [("unread", str(error))], []
    if source.damage is not None:
        one.state = "damaged"
        faults.append(("damage", source.damage.text()))
    beside = set(outside(Crop(0, 0, *size), labels))
    one.outside = len(beside)
    one.cropped = 0 if crop is None else len(set(outside(crop, labels)) - beside)
    faults += [("label", text) for text in label_faults(labels, one.frames, size, crop)]
    files = frame_files(clip) or range(one.frames)
    for jump in jumps:
        if jump.frame < one.frames:
            ends = f"from frame {files[jump.before]} to {files[jump.frame]}"
            faults.append(("jump", f"{jump.name} moves {jump.pixels:.0f} pixels {ends}"))
    return one, faults, pictures
