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
from .ground_truth.readers import PairData
from .ground_truth.scores import ExactAccount
from .loop import Driven, Row, Step, spread
from .metrics import to_levels

METHODS = ("model", "hold", "blur", "oracle", "another_seed")
"""See `comparison.compare`; `another_seed` is the truth rendered with other scatterers."""
NOT_ALIGNED = "nothing"


def predict(
    candidate: Candidate, data: PairData, alignment: str = "none", max_frames: int | None = None
) -> tuple[Row, list[Driven]]:
    """Drive a still with another subject's clip and compare it with the truth.

    Args:
        alignment: what aligns source and reference: `given`, the labels of both frames and, where
            the model can, the pictures themselves; `landmarks`, the labels alone; `auto`, what the
            model finds by itself; `none`.
        max_frames: measure only so many, evenly spread.

    Raises:
        InputError: alignment by labels, and no landmark is labelled in both frames.
    """
    pair, sector = data.pair, data.field.sector
    numbers = spread(range(len(data.driving)), max_frames)
    animator = candidate.other
    animator.set_source(data.source)
    animator.set_reference(data.driving[0])
    aligned_by = _align(animator, data, alignment)
    grey = to_levels(data.source)
    exact = ExactAccount(grey, sector, candidate.geometry, data.names, data.start)
    everywhere = np.ones_like(sector)  # the field is exact even where the source ends
    steps = (
        Step(
            number=t,
            driving=data.driving[t],
            truth=data.truth[t],
            after=t,
            flow=data.field.displacement[t],
            known=everywhere,
            points=data.keypoints[t],
            others={"another_seed": to_levels(data.other[t])},
        )
        for t in numbers
    )
    row, samples = compare(
        animator,
        METHODS,
        data.source,
        steps,
        numbers=numbers,
        frames=data.truth,
        mask=sector,
        exact=exact,
    )
    row = {
        "pair": pair.name,
        "source": pair.source.name,
        "driving": pair.driving.name,
        "source_subject": pair.source.subject,
        "driving_subject": pair.driving.subject,
        "group": pair.source.group,
        "split": pair.split,
        "aligned_by": aligned_by,
        "frames": len(data.driving),
        **row,
        "mean_flow": row["exact"]["endpoint_hold"],
    }
    tracked = dict(zip(numbers, exact.tracked, strict=True))
    return row, [driven._replace(found=tracked[driven.step.number]) for driven in samples]


def _align(animator: Animator, data: PairData, alignment: str) -> str:
    """Align source and reference; by which landmarks, by `pictures` too, or NOT_ALIGNED."""
    if alignment == "none":
        return NOT_ALIGNED
    if alignment == "auto":
        found = align_pair(animator, "auto", Picture(data.source), Picture(data.driving[0]))
        return ", ".join([*found.names, *["pictures"] * found.pictures]) or NOT_ALIGNED
    both = np.stack([data.start, data.reference])
    inside = ((both >= -0.5) & (both <= len(data.source) - 0.5)).all(axis=(0, 2))
    if not inside.any():
        raise InputError(
            f"the pair {data.pair.name!r}: no landmark is labelled in frame 0 of both its clips",
            "label them in keypoints.csv, or give --alignment none",
        )
    pictures = alignment == "given" and animator.session.can_register
    animator.align(*both[:, inside], pictures=pictures)
    return ", ".join([*np.array(data.names)[inside].tolist(), *["pictures"] * pictures])
