"""Make a study: clips made alike under opaque names, orders, and the key."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...runtime.support.atomic_files import atomic_folder
from ...runtime.support.errors import ConfigError
from ...runtime.support.progress import progress
from .arms import Say, find_cases, look_at, warn_of_cues
from .clips import check_encoder, pad_alike, recipe, smallest, write_clip
from .orders import draw_order
from .study_folder import REAL, Coded, Key, clip_file, write_study

QUESTION = "How realistic does this ultrasound clip look?"
_NAMES, _ORDERS = 1, 2  # random streams of the seed
_SHARE = 5
"""One clip in so many is shown twice, unless --repeats says another number."""


class Made(NamedTuple):
    """What a new study holds: clips, cases (0 if the arms share none), how many clips a rater sees
    twice, (width, height), fewest and most frames; whether an input was damaged."""

    clips: int
    cases: int
    repeats: int
    size: tuple[int, int]
    frames: tuple[int, int]
    damaged: bool


def make(
    folder: Path,
    arms: Mapping[str, Path],
    say: Say,
    *,
    raters: int = 4,
    repeats: int | None = None,
    seed: int | None = None,
    question: str = QUESTION,
    real_or_fake: bool = False,
    size: tuple[int, int] | None = None,
    fps: Fraction | None = None,
) -> Made:
    """Make a study in a new folder.

    Args:
        arms: a folder of clips by name.
        say: takes warnings.
        raters: how many orders to draw.
        repeats: how many clips each rater sees twice; None: a fifth of them.
        seed: of names and orders, 0 to 2^63 - 1; None: drawn. The key keeps it.
        size: (width, height) of all clips, even; None: of the smallest one.
        fps: frames a second of all clips, whatever their files say.

    Raises:
        ConfigError: more repeats than clips, `real_or_fake` without an arm called real, a question
            that is not one line of 1 to 200 characters.
        InputError: an arm without clips, a clip that cannot be read, a case whose clips differ in
            shape or rate.
        OutputError: the folder is not empty, it cannot be written, there is no encoder.
    """
    check_encoder()
    if not (question.strip() and question.isprintable() and len(question) <= 200):
        raise ConfigError("the question is empty, too long or no plain text", "up to 200 letters")
    if real_or_fake and REAL not in arms:
        hint = f"call the arm with the real clips so: --arm {REAL}=FOLDER"
        raise ConfigError(f"--real-or-fake needs an arm called {REAL}", hint)
    groups = find_cases(arms, say)
    matched = len({item.case for item in groups[0]}) == 1
    items = [item for group in groups for item in group]
    repeats = -(-len(items) // _SHARE) if repeats is None else repeats
    if repeats > len(items):
        hint = f"at most all of them: --repeats {len(items)}"
        raise ConfigError(f"--repeats {repeats}, but there are {len(items)} clips", hint)
    with atomic_folder(folder) as temporary:
        looks = look_at(items, fps, say)
        warn_of_cues(items, looks, say)
        canvas = size or smallest(looks)
        look_of = dict(zip(items, looks, strict=True))
        recipes = [recipe(g, [look_of[item] for item in g], canvas, matched) for g in groups]
        uneven = sum(len({look_of[item].frames for item in group}) > 1 for group in groups)
        if uneven:
            what = f"in {uneven} of {len(groups)} cases" if matched else "all over the study"
            say(f"clips have different lengths {what}: cut to the shortest one")
        seed = secrets.randbits(63) if seed is None else seed
        rng = np.random.default_rng([seed, _NAMES])
        names = {item: rng.bytes(6).hex() for item in items}
        work = [
            (names[item], item, box, made)
            for group, made in zip(groups, recipes, strict=True)
            for item, box in zip(group, made.boxes, strict=True)
        ]
        for name, item, box, made in progress(work, label="writing clips"):
            write_clip(clip_file(temporary, name), item, box, made, fps)
        for group in groups:
            pad_alike([clip_file(temporary, names[item]) for item in group])
        now = time.time()
        for name in names.values():  # which was written or padded last must not show
            os.utime(clip_file(temporary, name), (now, now))
        coded = [Coded(names[i], i.arm, i.case, str(i.path)) for i in items]
        coded.sort(key=lambda clip: clip.clip)
        arm, case = ({c.clip: getattr(c, what) for c in coded} for what in ("arm", "case"))
        shown = sorted(arm)
        orders = [
            draw_order(shown, arm, case, repeats, np.random.default_rng([seed, _ORDERS, rater]))
            for rater in range(raters)
        ]
        if any(case[a] == case[b] for order in orders for a, b in pairwise(order)):
            say("a case comes twice in a row in some orders: there are too few cases to avoid it")
        key = Key(tuple(arms), matched, seed, tuple(coded))
        write_study(temporary, key, question, real_or_fake, orders)
    frames = [made.frames for made in recipes]
    damaged = any(look.damaged for look in looks)
    cases = len(groups) if matched else 0
    return Made(len(items), cases, repeats, canvas, (min(frames), max(frames)), damaged)
