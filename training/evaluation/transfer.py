"""Transfer: real clips of other subjects drive, and no truth is known.

The source is the middle frame of a clip, as in a reconstruction; a clip of another subject drives
it, drawn from the seed. There is nothing to compare single frames with. What can be measured is
whether the driving subject's speckle leaks, and how far the synthesized frames, as a set, are from
the real frames of the source's own clips (the paper's FID and FVD of predictions).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.clip_frames import ClipFrames
from ..data.dataset import Clip
from .candidate import Candidate
from .loop import SAMPLES, Frame, Row, spread
from .metrics import clip_mask, to_float, to_levels
from .tasks import (
    NOT_ALIGNED,
    align_auto,
    choose_driver,
    correlations,
    driven_frames,
    leakage_of,
)
from .viewer import TRUTH, Viewer


def choose_pairs(clips: Sequence[Clip], seed: int, at_most: int | None) -> list[tuple[int, int]]:
    """Indices of sources with those of their drivers: every clip that has one is a source once."""
    drivers = ((i, choose_driver(clips, i, seed)) for i in range(len(clips)))
    return spread([(i, driver) for i, driver in drivers if driver is not None], at_most)


def transfer(
    candidate: Candidate,
    clip: ClipFrames,
    other: ClipFrames,
    alignment: str = "none",
    max_frames: int | None = None,
    viewer: Viewer | None = None,
) -> tuple[Row, list[Frame]]:
    """Drive a clip's middle frame with another subject's clip.

    Methods: `model`, relative motion from the driving clip's first frame; `absolute`, the same with
    absolute motion, where the model has it.

    Args:
        alignment: of source and reference, for relative motion: `auto`, what the model finds by
            itself, or `none`.
        viewer: networks that see the frames of both methods, the source as it is (`hold`), and the
            real frames of the source's clip but the source itself.
    """
    source, mask = np.array(clip.frames[len(clip) // 2]), clip_mask(clip.frames)
    both, held = mask & clip_mask(other.frames), to_float(source)
    animators = {"model": candidate.other}
    if candidate.own.motion != candidate.other.motion:
        animators["absolute"] = candidate.own
    for animator in animators.values():
        animator.set_source(source)
        animator.set_reference(np.array(other.frames[0]))
    aligned_by = NOT_ALIGNED
    if alignment == "auto":
        aligned_by = align_auto(candidate.other, source, np.array(other.frames[0]))
    numbers, samples = spread(range(len(other)), max_frames), []
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in animators}
    wanted = spread(numbers, SAMPLES)
    for i in numbers:
        made = {}
        for name, animator in animators.items():
            frame = Frame(i, np.array(other.frames[i])).drive(animator)
            found[name].append(correlations(frame, held, mask, both))
            made[name] = to_levels(frame.prediction)
            if name == "model" and i in wanted:
                samples.append(frame)
        if viewer:
            viewer.see({**made, "hold": to_levels(source)})
    if viewer:
        for i in driven_frames(len(clip), max_frames):
            viewer.see({TRUTH: to_levels(np.array(clip.frames[i]))})
        viewer.end()
    return {
        "pair": "__".join(each.clip.name.replace("/", "-") for each in (clip, other)),
        "source": clip.clip.name,
        "driving": other.clip.name,
        "source_subject": clip.clip.subject,
        "driving_subject": other.clip.subject,
        "group": clip.clip.group,
        "aligned_by": aligned_by,
        "driven": len(numbers),
        "methods": {name: leakage_of(frames) for name, frames in found.items()},
    }, samples
