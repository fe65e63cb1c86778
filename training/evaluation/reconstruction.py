"""Reconstruction: a clip drives its own middle frame; another subject's clip drives it too.

Every other frame of a clip drives the clip's middle frame (n // 2) with absolute motion, or
relative to that frame where the model has no absolute one. Leakage: the clip of another subject
drives the same still with relative motion. Own size: a clip larger than the model's frame is driven
once more, at its own size. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ...runtime.compose import MOST_SIDE
from ...runtime.media.video import open_source
from ..data.dataset import Clip, ClipFrames
from .candidate import Candidate
from .comparison import compare
from .ground_truth.fields import flow_between
from .ground_truth.readers import read_clip_field
from .ground_truth.scores import ExactAccount
from .landmarks import labelled_pixels
from .loop import SAMPLES, Driven, Picture, Row, Step, drive, spread
from .metrics import (
    Leakage,
    Spread,
    clip_mask,
    deformation_flow,
    high_pass,
    leakage_ncc,
    masked_sum,
    ratio,
    to_float,
    to_levels,
    warp_by_flow,
)

METHODS = ("model", "hold", "blur", "flow")
"""See `comparison.compare`; where the exact field is known, `oracle` too."""
MOST_FRAMES = 16
"""Of the leakage test and of the measures at the clip's own size."""
LEAK_LEVEL = 0.1
"""A clip leaks when the driving frame's speckle shows in the result this much above the floor."""


def driven_frames(count: int, max_frames: int | None = None) -> list[int]:
    """The frames that drive: all but the middle one, or `max_frames` of them, evenly spread."""
    return spread([i for i in range(count) if i != count // 2], max_frames)


def motionless(clip: ClipFrames) -> str | None:
    """Why a clip cannot be reconstructed; None where it can."""
    return "has one distinct frame only, so nothing moves" if len(clip) < 2 else None


def reconstruct(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> tuple[Row, list[Driven]]:
    """Drive a clip's middle frame with the clip itself, beside other methods.

    Args:
        clip: of at least two frames; `clip.clip.displacement` is the file of its exact field.
        max_frames: measure only so many, evenly spread.

    Raises:
        InputError: the exact field cannot be read, or does not fit the clip.
    """
    frames, middle = clip.frames, len(clip) // 2
    source = np.array(frames[middle])
    numbers = driven_frames(len(clip), max_frames)
    methods, exact, field = METHODS, None, None
    labels = labelled_pixels(clip)
    if clip.clip.displacement is not None:
        field = read_clip_field(clip.clip.displacement, clip)
        methods += ("oracle",)
        exact = ExactAccount(
            to_levels(source),
            field.sector,
            candidate.geometry,
            clip.keypoint_names,
            labels[middle],
        )

    def steps() -> Iterator[Step]:
        for i in numbers:
            image = np.array(frames[i])
            step = Step(i, image, image, i - middle, points=labels[i])
            if field is not None:
                driving, still = field.displacement[clip.indices[[i, middle]]]
                flow, known = flow_between(driving, still)
                step = step._replace(flow=flow, known=known)
            yield step

    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    row, samples = compare(
        candidate.own,
        methods,
        source,
        steps(),
        numbers=numbers,
        frames=frames,
        mask=clip_mask(frames),
        exact=exact,
    )
    about = clip.clip
    named = {"clip": about.name, "subject": about.subject, "group": about.group}
    return {**named, "frames": len(clip), **row}, samples


def choose_driver(clips: Sequence[Clip], index: int, seed: int) -> int | None:
    """Index of the clip that drives clip `index` in the leakage test; None without any.

    A clip of another subject, of the same group where there is one, drawn from `seed` and the
    clip's name, whatever the order of the clips.
    """
    own = clips[index]
    others = [i for i, other in enumerate(clips) if other.subject != own.subject]
    near = [i for i in others if clips[i].group == own.group]
    pool = sorted(near or others, key=lambda i: clips[i].name)
    if not pool:
        return None
    draw = np.random.default_rng([seed, zlib.crc32(own.name.encode())])
    return pool[int(draw.integers(len(pool)))]


def leaks(leakage: Leakage) -> bool:
    """Whether the driving speckle shows: LEAK_LEVEL above the floor, or more than the source's."""
    return leakage.driving - leakage.floor > LEAK_LEVEL or leakage.driving >= leakage.source


def leakage(
    candidate: Candidate, clip: ClipFrames, other: ClipFrames, max_frames: int | None = None
) -> tuple[Row, list[Driven]]:
    """Drive a clip's middle frame with another subject's clip, relative motion.

    Args:
        max_frames: at most so many frames of the other clip (never more than MOST_FRAMES).

    Returns:
        the mean over frames and whether it leaks, and a few frames for the pictures.
    """
    source = np.array(clip.frames[len(clip) // 2])
    numbers = spread(range(len(other)), min(max_frames or MOST_FRAMES, MOST_FRAMES))
    held, masks = to_float(source), (clip_mask(clip.frames), clip_mask(other.frames))
    rows: list[Leakage] = []

    def measure(driven: Driven) -> None:
        flow = deformation_flow(driven.deformation, *held.shape, candidate.geometry)
        warped = warp_by_flow(held, flow)
        rows.append(leakage_ncc(driven.prediction, warped, driven.step.driving, *masks))

    candidate.other.set_source(source)
    candidate.other.set_reference(np.array(other.frames[0]))
    steps = (Step(i, np.array(other.frames[i])) for i in numbers)
    samples = drive(candidate.other, steps, [measure], shown=spread(numbers, SAMPLES))
    mean = Leakage(*np.mean(rows, axis=0).tolist())
    return {**mean._asdict(), "leaks": leaks(mean)}, samples


def at_own_size(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> Row | None:
    """Drive a clip's middle frame with the clip itself, at the clip's own size.

    The frame composed over the source (models with layers) and the model's frame enlarged (bicubic)
    are compared with the real frame at its own size.

    Args:
        max_frames: at most so many frames (never more than MOST_FRAMES).

    Returns:
        sharpness and L1 ratio by method; None for a clip that is not larger than the model's frame,
        or too large to be composed.
    """
    box = clip.letterbox
    if not box.size < max(box.width, box.height) <= MOST_SIDE:
        return None
    middle = len(clip) // 2
    numbers = driven_frames(len(clip), min(max_frames or MOST_FRAMES, MOST_FRAMES))
    pictures = _read(clip, [middle, *numbers], candidate.channels)
    source = pictures.pop(middle)
    mask = clip_mask(np.stack([source, *pictures.values()]))
    held = to_float(source)
    methods = ["composed", "enlarged"] if candidate.has_layers else ["enlarged"]
    sums = {name: np.zeros(2) for name in methods}  # |y - x|, |S - x|
    sharpness = {name: Spread() for name in methods}

    def measure(driven: Driven) -> None:
        x, inside = to_float(driven.step.driving), box.inside(driven.prediction)
        enlarged = cv2.resize(inside, (box.width, box.height), interpolation=cv2.INTER_CUBIC)
        pictures = {**driven.images, "enlarged": enlarged}
        hold, high = masked_sum(held - x, mask), high_pass(x)[mask]
        for name in methods:
            y = to_float(pictures[name])
            sums[name] += masked_sum(y - x, mask), hold
            sharpness[name].add(high_pass(y)[mask], high)

    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    steps = (Step(i, picture) for i, picture in pictures.items())
    drive(candidate.own, steps, [measure], compose=candidate.has_layers)
    return {
        "width": box.width,
        "height": box.height,
        "driven": len(numbers),
        "methods": {
            name: {"l1_ratio": ratio(*sums[name].tolist()), "sharpness": sharpness[name].ratio()}
            for name in methods
        },
    }


def _read(clip: ClipFrames, wanted: Sequence[int], channels: int) -> dict[int, Picture]:
    """Frames of a clip by their place in it, in time order, cropped but not resized."""
    places = {int(clip.indices[t]): t for t in sorted(wanted)}
    found: dict[int, Picture] = {}
    with open_source(clip.clip.path, clip.clip.crop, channels) as source:
        for number, _, image in source:
            if number in places:
                found[places[number]] = image.copy()
            if len(found) == len(places):
                break
    return found
