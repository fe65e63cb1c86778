"""Prediction: another subject's clip drives a still, compared with a phantom's truth.

The source is frame 0 of A's clip, the reference frame 0 of B's, B's clip drives: relative motion,
scale 1, no smoothing. Every frame is compared with the true prediction: A moved as B moves.
"""

from __future__ import annotations

import numpy as np

from ...runtime.animator import Animator
from ...runtime.landmarks import Picture, align_pair
from ...runtime.support.errors import InputError
from .candidate import Candidate
from .comparison import compare
from .loop import Case, Frame, Row, spread
from .truth import Pair

METHODS = ("model", "hold", "blur", "oracle", "another_seed")
"""See `comparison.compare`; `another_seed` is the truth rendered with other scatterers."""
NOT_ALIGNED = "nothing"


def predict(
    candidate: Candidate,
    pair: Pair,
    case: Case,
    alignment: str = "none",
    max_frames: int | None = None,
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
    row, samples, tracked = compare(animator, case, METHODS, numbers)
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
        found = align_pair(animator, "auto", Picture(case.source), Picture(case.driving[0]))
        return ", ".join([*found.names, *["pictures"] * found.pictures]) or NOT_ALIGNED
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
