"""Reconstruction: a clip drives its own middle frame. Prediction: another subject's clip drives.

Reconstruction: the source is frame n // 2; the motion is absolute, or relative to that frame where
the model has no absolute one. A large clip drives it at its own size too. Leakage: the clip of
another subject drives the same still.

Prediction: the source is frame 0 of A's clip, the reference frame 0 of B's, B's clip drives:
relative motion, scale 1, no smoothing. Every frame is compared with a phantom's true prediction: A
moved as B moves. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import islice

import cv2
import numpy as np

from ...runtime import landmarks
from ...runtime.animator import Animator
from ...runtime.compose import MOST_SIDE
from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import Reading
from ...runtime.support.errors import InputError
from ..data.clip_frames import ClipFrames
from ..data.dataset import Clip
from . import metrics
from .candidate import Candidate
from .comparison import compare
from .loop import SAMPLES, Case, Frame, Picture, Row, spread
from .metrics import (
    FloatImage,
    Mask,
    clip_mask,
    high_pass,
    masked_sum,
    ncc,
    ratio,
    spread_ratio,
    to_float,
)
from .tracking import labelled_pixels
from .truth import Pair, flow_between, read_clip_field
from .viewer import Viewer

METHODS = ("model", "hold", "blur", "flow")
"""See `comparison.compare`; where the exact field is known, `oracle` too."""
PREDICTION_METHODS = ("model", "hold", "blur", "oracle", "another_seed")
"""`another_seed` is the truth rendered with other scatterers."""
NOT_ALIGNED = "nothing"
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
    candidate: Candidate,
    clip: ClipFrames,
    max_frames: int | None = None,
    viewer: Viewer | None = None,
) -> tuple[Row, list[Frame]]:
    """Drive the middle frame of a clip with the clip itself, beside other methods.

    Raises:
        InputError: the exact field (`Clip.displacement`) cannot be read, or does not fit the clip.
    """
    pictures, middle, about = clip.frames, len(clip) // 2, clip.clip
    labels = labelled_pixels(clip)
    case = Case(
        source=np.array(pictures[middle]),
        middle=middle,
        driving=pictures,
        truth=pictures,
        mask=clip_mask(pictures),
        names=clip.clip.keypoint_names,
        start=labels[middle],
        points=labels,
    )
    methods = METHODS
    if about.displacement is not None:
        field, case.sector = read_clip_field(about.displacement, clip)
        case.flow = lambda t: flow_between(*field[clip.indices[[t, middle]]])
        methods += ("oracle",)
    candidate.own.set_source(case.source)
    candidate.own.set_reference(case.source)
    numbers = driven_frames(len(clip), max_frames)
    row, samples, _ = compare(candidate.own, case, methods, numbers, viewer)
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


def leaks(leakage: Row) -> bool:
    """Whether the driving speckle shows: LEAK_LEVEL above the floor, or more than the source's."""
    driving = leakage["driving"]
    return driving - leakage["floor"] > LEAK_LEVEL or driving >= leakage["source"]


def leakage(
    candidate: Candidate, clip: ClipFrames, other: ClipFrames, max_frames: int | None = None
) -> tuple[Row, list[Frame]]:
    """Drive a clip's middle frame with another subject's clip, at most MOST_FRAMES of it.

    Returns:
        NCC of high-passed pictures, means over frames: `source`, of the result with the warped
        source over the source's M; `driving`, of the result with the driving frame over both clips'
        M (a copy has 1); `floor`, of the warped source with the driving frame, since sector edges
        and marks may coincide; whether it `leaks`. And a few frames for the pictures.
    """
    source = np.array(clip.frames[len(clip) // 2])
    numbers = spread(range(len(other)), min(max_frames or MOST_FRAMES, MOST_FRAMES))
    held, mask = to_float(source), clip_mask(clip.frames)
    both = mask & clip_mask(other.frames)
    candidate.other.set_source(source)
    candidate.other.set_reference(np.array(other.frames[0]))
    frames = [Frame(i, np.array(other.frames[i])).drive(candidate.other) for i in numbers]
    row = leakage_of([correlations(frame, held, mask, both) for frame in frames])
    wanted = spread(numbers, SAMPLES)
    return row, [frame for frame in frames if frame.number in wanted]


def correlations(
    frame: Frame, held: FloatImage, mask: Mask, both: Mask
) -> tuple[float, float, float]:
    """What one frame adds to the leakage: NCC of high-passed pictures, see `leakage`."""
    images = frame.prediction, metrics.warp_by_flow(held, frame.flow), frame.driving
    y, s, d = (high_pass(to_float(image)) for image in images)
    return ncc(y, s, mask), ncc(y, d, both), ncc(s, d, both)


def leakage_of(frames: Sequence[tuple[float, float, float]]) -> Row:
    """The means of `correlations` over frames, and the verdict."""
    means = np.mean(frames, axis=0).tolist()
    row = dict(zip(("source", "driving", "floor"), means, strict=True))
    return {**row, "leaks": leaks(row)}


def at_own_size(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> Row | None:
    """Drive a clip's middle frame with the clip itself, at the clip's own size.

    The frame composed over the source (models with layers) and the model's frame enlarged (bicubic)
    are compared with the real frame at its own size, in at most MOST_FRAMES frames.

    Returns:
        sharpness and L1 ratio by method; None for a clip that is not larger than the model's frame,
        or too large to be composed.
    """
    box, about = clip.letterbox, clip.clip
    if not box.size < max(box.width, box.height) <= MOST_SIDE:
        return None
    middle, chain, own = len(clip) // 2, candidate.own.session.chain, candidate.own
    numbers = driven_frames(len(clip), min(max_frames or MOST_FRAMES, MOST_FRAMES))
    places = {int(clip.indices[t]): t for t in (middle, *numbers)}  # in the file
    frames = islice(
        open_source(about.path, Reading(about.crop), chain.image.channels), max(places) + 1
    )
    pictures = {places[i]: image.copy() for i, _, image in frames if i in places}
    source = pictures.pop(middle)
    mask, held = clip_mask(np.stack([source, *pictures.values()])), to_float(source)
    sums: Row = {}  # |y - x|, |S - x|, and what gives the sharpness
    own.set_source(source)
    own.set_reference(source)
    for i, picture in pictures.items():
        inside = box.inside(Frame(i, picture).drive(own).prediction)
        results = {"composed": own.compose(size="source")} if chain.layers is not None else {}
        size = box.width, box.height
        results["enlarged"] = cv2.resize(inside, size, interpolation=cv2.INTER_CUBIC)
        x = to_float(picture)
        for name, image in results.items():
            y = to_float(image)
            sharpness = metrics.moments(high_pass(y)[mask], high_pass(x)[mask])
            errors = masked_sum(y - x, mask), masked_sum(held - x, mask)
            sums[name] = sums.get(name, 0) + np.array([*errors, *sharpness])
    methods = {
        name: {"l1_ratio": ratio(*total[:2].tolist()), "sharpness": spread_ratio(total[2:])[0]}
        for name, total in sums.items()
    }
    return {"width": box.width, "height": box.height, "driven": len(numbers), "methods": methods}


def predict(
    candidate: Candidate,
    pair: Pair,
    case: Case,
    alignment: str = "none",
    max_frames: int | None = None,
    viewer: Viewer | None = None,
) -> tuple[Row, list[Frame]]:
    """Drive a still with another subject's clip and compare it with the truth.

    Args:
        case: the pair, as `read_pair` gives it.
        alignment: what aligns source and reference: `given`, the labels of both frames and, where
            the model can, the pictures themselves; `landmarks`, the labels alone; `auto`, what the
            model finds by itself; `none`.

    Raises:
        InputError: alignment by labels, and no landmark is labelled in both frames.
    """
    numbers, animator = spread(range(len(case.driving)), max_frames), candidate.other
    animator.set_source(case.source)
    animator.set_reference(case.driving[0])
    aligned_by = _align(animator, pair, case, alignment)
    row, samples, tracked = compare(animator, case, PREDICTION_METHODS, numbers, viewer)
    row = {
        "pair": pair.name,
        "source": pair.source.name,
        "driving": pair.driving.name,
        "source_subject": pair.source.subject,
        "driving_subject": pair.driving.subject,
        "group": pair.source.group,
        "split": pair.split,
        "aligned_by": aligned_by,
        "frames": len(case.driving),
        **row,
        "mean_flow": row["exact"]["endpoint_hold"],
    }
    for frame in samples:
        frame.found = tracked[numbers.index(frame.number)]
    return row, samples


def _align(animator: Animator, pair: Pair, case: Case, alignment: str) -> str:
    """Align source and reference; by which landmarks, by `pictures` too, or NOT_ALIGNED."""
    if alignment == "none":
        return NOT_ALIGNED
    if alignment == "auto":
        return align_auto(animator, case.source, case.driving[0])
    both = np.stack([case.start, case.reference])
    inside = ((both >= -0.5) & (both <= len(case.source) - 0.5)).all(axis=(0, 2))
    if not inside.any():
        raise InputError(
            f"the pair {pair.name!r}: no landmark is labelled in frame 0 of both its clips",
            "label them in keypoints.csv, or give --alignment none",
        )
    pictures = alignment == "given" and animator.session.can_register
    animator.align(*both[:, inside], pictures=pictures)
    return ", ".join([*np.array(case.names)[inside].tolist(), *["pictures"] * pictures])


def align_auto(animator: Animator, source: Picture, reference: Picture) -> str:
    """Align source and reference by what the model finds by itself; says by what."""
    found = landmarks.align_pair(animator, "auto", *map(landmarks.Picture, (source, reference)))
    return ", ".join([*found.names, *["pictures"] * found.pictures]) or NOT_ALIGNED
