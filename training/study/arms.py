"""The arms of a study: their clips, which cases they share, and what is in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.media.frames import AskedCrop, Image
from ...runtime.media.mark import draw_mark
from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import IS_SYNTHETIC, Reading, mean_rate
from ...runtime.readers.source import FrameSource
from ...runtime.support.errors import ConfigError, InputError
from ...runtime.support.progress import progress
from ..data.dataset import find_clips
from .study_folder import NAME_RULE, REAL, is_name

Say = Callable[[str], object]
_LIKE_THE_MARK = 0.8
"""Correlation of a corner with the synthetic mark from which it is taken for one."""


class Item(NamedTuple):
    """A clip of an arm, not yet read; `case` is its stem, in front of it the arm's name where no
    other arm has that case."""

    arm: str
    case: str
    path: Path
    crop: AskedCrop

    def open(self, fps: Fraction | None) -> FrameSource:
        """Its frames, in grey."""
        return open_source(self.path, Reading(crop=self.crop, fps=fps), announce=False)


class Look(NamedTuple):
    """What a clip holds: whole frames, (width, height), frames a second if known; whether it bears
    sonomime's mark, whether its metadata say that it is synthetic, whether it is damaged."""

    frames: int
    size: tuple[int, int]
    fps: Fraction | None
    marked: bool
    synthetic: bool
    damaged: bool


def parse_arms(texts: Sequence[str]) -> dict[str, Path]:
    """Read "NAME=FOLDER" texts.

    Raises:
        ConfigError: fewer than two, another form, a name or a folder that is there twice.
    """
    arms: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not (equals and folder and is_name(name)):
            hint = f"write it as NAME=FOLDER, e.g. --arm ours=out/; a name has {NAME_RULE}"
            raise ConfigError(f"cannot read the arm {text!r}", hint)
        if name in arms or Path(folder).resolve() in [path.resolve() for path in arms.values()]:
            raise ConfigError(f"--arm {text}: that arm is there already", "give each arm once")
        arms[name] = Path(folder)
    if len(arms) < 2:
        raise ConfigError("a study compares at least two arms", "e.g. --arm real=a/ --arm ours=b/")
    return arms


def find_cases(arms: Mapping[str, Path], say: Say) -> list[list[Item]]:
    """The clips, in groups that are made alike: one for each case that all arms have (files of the
    same stem). If the arms share no case, all clips are one group. What is left out is said.

    Raises:
        InputError: an arm without clips, or with two of the same stem.
    """
    found: dict[str, dict[str, Item]] = {}
    for arm, folder in arms.items():
        listed = find_clips([folder])
        for clip, reason in listed.unsupported:
            say(f"left out: {clip.path}: {reason}")
        items = found[arm] = {}
        for clip in listed.clips:
            stem = clip.path.name if clip.path.is_dir() else clip.path.stem
            if stem in items:
                fault = f"{clip.path} and {items[stem].path} are both called {stem}"
                raise InputError(fault, "the stem of a file says which case it is: rename one")
            items[stem] = Item(arm, stem, clip.path, clip.crop)
        if not items:
            raise InputError(f"the arm {arm} has no clip that can be read", "check its folder")
    common = sorted(set.intersection(*(set(items) for items in found.values())))
    for arm, items in found.items():
        if common and (alone := sorted(set(items) - set(common))):
            more = ", ..." if len(alone) > 5 else ""
            shown = ", ".join(alone[:5]) + more
            say(f"left out of {arm}, since other arms lack the case: {len(alone)} ({shown})")
    if common:
        return [[items[case] for items in found.values()] for case in common]
    say(
        "the arms share no case (no stem of a file is in all of them): each clip is its own case, "
        "and the arms are compared by different cases"
    )
    every = [item for items in found.values() for item in items.values()]
    return [[item._replace(case=f"{item.arm}/{item.case}") for item in every]]


def look_at(items: Sequence[Item], fps: Fraction | None, say: Say) -> list[Look]:
    """Read all clips once; what their readers assume or drop is said.

    Raises:
        InputError: one cannot be read, or has a single frame.
    """
    looks = []
    for item in progress(items, label="reading clips"):
        source = item.open(fps)
        times, marked = [], False
        for frame in source:
            times.append(frame.timestamp)
            marked = marked or (len(times) == 1 and bears_mark(frame.image))
        if len(times) < 2:
            raise InputError(f"{item.path} has one frame only", "a study shows clips that move")
        rate = source.fps
        if rate is None and source.facts.rate != "assumed":
            rate = mean_rate(times)
        notes = source.facts.notes
        unusual = [text for text in notes if not text.endswith(IS_SYNTHETIC)]
        for text in unusual:
            say(f"{item.path}: {text}")
        synthetic = len(unusual) < len(notes)
        damaged = source.damage is not None
        looks.append(Look(len(times), source.size, rate, marked, synthetic, damaged))
    return looks


def bears_mark(image: Image) -> bool:
    """Whether the corner of a picture (H, W) looks like the synthetic mark of its size."""
    black, white = (draw_mark(np.full_like(image, level)) for level in (0, 255))
    stamp = black == white  # the pixels that the mark covers
    if np.ptp(image[stamp]) == 0:
        return False
    return float(np.corrcoef(image[stamp], black[stamp])[0, 1]) > _LIKE_THE_MARK


def warn_of_cues(items: Sequence[Item], looks: Sequence[Look], say: Say) -> None:
    """Say by what the arms could be told apart, as far as it can be seen here."""
    arms = list(dict.fromkeys(item.arm for item in items))
    of: dict[str, list[Look]] = {arm: [] for arm in arms}
    for item, look in zip(items, looks, strict=True):
        of[item.arm].append(look)
    shares = {arm: sum(look.marked for look in of[arm]) / len(of[arm]) for arm in arms}
    if len(set(shares.values())) > 1:
        shown = ", ".join(f"{arm} {share:.0%}" for arm, share in shares.items())
        say(
            f"the synthetic mark seems to be burned into these shares of the clips: {shown}. "
            "That tells the arms apart: make the synthetic clips with `animate --no-mark`"
        )
    sizes = {arm: sorted({look.size for look in of[arm]}) for arm in arms}
    if len({tuple(each) for each in sizes.values()}) > 1:
        shown = ", ".join(
            f"{arm} {'x'.join(map(str, each[0]))}{' and others' * (len(each) > 1)}"
            for arm, each in sizes.items()
        )
        say(f"the arms had different sizes ({shown}): sharpness can still tell them apart")
    if any(look.synthetic for look in of.get(REAL, [])):
        say(f"the arm {REAL} has files whose metadata say that they are synthetic")
    unknown = [arm for arm in arms if any(look.fps is None for look in of[arm])]
    if unknown and any(look.fps for look in looks):
        say(f"clips of {', '.join(unknown)} state no frame rate: they take that of their case")
