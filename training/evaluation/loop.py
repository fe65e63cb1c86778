"""The loop of every task: frames drive a still, and measures look at what comes out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.animator import Animator
from .landmarks import Points
from .metrics import FloatImage, Mask, to_levels

Picture = NDArray[np.uint8]
Row = dict[str, Any]
"""What was measured on one clip or pair, as results.json holds it."""

SAMPLES = 5
"""How many frames of a clip its strip shows."""


class Step(NamedTuple):
    """A driving frame, and what is known about the picture that it should give.

    Attributes:
        number: of the frame in its clip.
        driving, truth: (H, W[, 3]).
        after: how many frames after the source's; below 0: before it.
        flow, known: the exact F(x->S) (H, W, 2), and where it holds (H, W).
        points: true landmarks (P, 2) in pixels, nan where unknown.
        others: pictures by further methods.
    """

    number: int
    driving: Picture
    truth: Picture | None = None
    after: int = 0
    flow: FloatImage | None = None
    known: Mask | None = None
    points: Points | None = None
    others: Mapping[str, Picture] = {}


class Driven(NamedTuple):
    """A step and its result.

    Attributes:
        prediction: the model's frame (S, S[, 3]).
        deformation: the model's (h, w, 2).
        images: pictures by method; `composed`, at the source's size, if that was asked for.
        expected: what `expect` returned for the step.
        found: points found in the prediction (P, 2), for the pictures.
    """

    step: Step
    prediction: Picture
    deformation: FloatImage
    images: Mapping[str, Picture]
    expected: Any = None
    found: Points | None = None


def drive(
    animator: Animator,
    steps: Iterable[Step],
    measures: Sequence[Callable[[Driven], object]],
    *,
    shown: Collection[int] = (),
    expect: Callable[[Step], tuple[Any, Mapping[str, Picture]]] = lambda step: (None, {}),
    compose: bool = False,
) -> list[Driven]:
    """Animate step by step, by an animator whose source and reference are set.

    Args:
        measures: each is called with every frame, in time order, in one thread at a time.
        shown: numbers of the frames to return, for the pictures.
        expect: computes what a frame is compared with, and pictures by other methods.
        compose: compose each frame at the source's size, too.
    """
    samples = []
    # OpenCV, numpy and the backends release Python's lock: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for step in steps:
            coming = pool.submit(expect, step)
            prediction = animator.animate(step.driving)
            deformation = np.asarray(animator.read("deformation")[0], np.float32)
            images = {"model": to_levels(prediction)}
            if compose:
                images["composed"] = animator.compose(size="source")
            expected, others = coming.result()
            driven = Driven(step, prediction, deformation, {**images, **others}, expected)
            for job in [pool.submit(measure, driven) for measure in measures]:
                job.result()
            if step.number in shown:
                samples.append(driven)
    return samples


def spread(indices: Sequence[Any], at_most: int | None) -> list[Any]:
    """At most so many of the indices, evenly spread, with the first and the last."""
    if at_most is None or len(indices) <= at_most:
        return list(indices)
    places = np.rint(np.linspace(0, len(indices) - 1, at_most)).astype(int)
    return [indices[i] for i in places]
