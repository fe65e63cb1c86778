"""Prediction: another subject's clip drives a still, judged against the truth of a phantom.

The source is frame 0 of A's clip, the reference frame 0 of B's, B's clip drives: RELATIVE motion,
scale 1, no smoothing. Models that can align two subjects do so: see ALIGNMENTS. Every frame is
compared with the true prediction, A moved as B moves. The mask is the sector, and F(x->S) of the
motion agreement is the exact field, over the pixels whose tissue the source's sector shows. Source:
METHOD, "The phantom".
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ...runtime.animator import Animator
from ...runtime.landmarks import Picture, align_pair
from ...runtime.support.errors import InputError
from .candidate import Candidate
from .fidelity import Account, Fidelity, Targets
from .ground_truth.readers import PairData
from .ground_truth.scores import Exact, ExactAccount, ExactFrame
from .metrics import FloatImage, Mask, blur, pixel_grid, read_at, to_float, to_levels, warp_by_flow
from .reconstruction import SAMPLES, Pictures, Sample, best_blur, read_deformation, spread

METHODS = ("model", "hold", "blur", "oracle", "another_seed")
"""The model; the source held; the source blurred by the sigma that fits the truth best, because L1
rewards blur; the source warped by the exact field; the truth rendered with other
scatterers, as far from the truth as an honest rendering of the same anatomy that guesses the
speckle."""


ALIGNMENTS = ("given", "landmarks", "auto", "none")
"""By what source and reference are aligned: the labels of both frames and, where the model can, the
pictures themselves; the labels alone; what the model finds by itself (`sonomime animate`'s
default); nothing."""
NOT_ALIGNED = "nothing"


@dataclass(frozen=True)
class PairResult:
    """All that was measured on one pair.

    Attributes:
        source, driving: the clips' names; the subjects are in `subjects`, in that order.
        group: of the source.
        aligned_by: which landmarks, `pictures`, or NOT_ALIGNED.
        frames: T; `driven` of them were measured.
        mean_flow: mean length of the exact field inside of the sector, in pixels.
        methods: the fidelity measures by method (see METHODS).
        exact: what the exact field allows.
    """

    pair: str
    source: str
    driving: str
    subjects: tuple[str, str]
    group: str
    split: str
    aligned_by: str
    frames: int
    driven: int
    mean_flow: float
    methods: dict[str, Fidelity]
    exact: Exact


def predict(
    candidate: Candidate, data: PairData, alignment: str = "none", max_frames: int | None = None
) -> tuple[PairResult, Pictures]:
    """Drive a still with another subject's clip and compare it with the truth.

    Args:
        alignment: of ALIGNMENTS.
        max_frames: measure only so many, evenly spread; temporal measures and tracks are then those
            of the thinned clip.
    """
    pair, sector = data.pair, data.field.sector
    indices = spread(range(len(data.driving)), max_frames)
    shown = set(spread(indices, SAMPLES))
    grey = to_levels(data.source)
    targets = Targets(grey, sector)
    accounts = {name: Account(targets) for name in METHODS}
    exact = ExactAccount(grey, sector, candidate.geometry, data.names, data.start)
    sigma = best_blur(data.truth, indices, data.source, sector)
    blurred = to_levels(blur(to_float(data.source), sigma))
    nothing = np.zeros((*grey.shape, 2), np.float32)
    still = {"hold": [nothing] * len(targets.flows), "blur": targets.flows_of(blurred)}
    samples: list[Sample] = []
    animator = candidate.other
    animator.set_source(data.source)
    animator.set_reference(data.driving[0])
    aligned_by = _align(animator, data, alignment)
    # OpenCV, numpy and the backends let go of Python's lock: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for t in indices:
            flow = data.field.displacement[t]
            truth = to_levels(data.truth[t])
            coming = pool.submit(targets.frame, truth, (flow, _visible(flow, sector)))
            prediction = animator.animate(data.driving[t])
            deformation = read_deformation(animator)
            images = {
                "model": to_levels(prediction),
                "hold": grey,
                "blur": blurred,
                "oracle": to_levels(warp_by_flow(grey, flow)),
                "another_seed": to_levels(data.other[t]),
            }
            target = coming.result()
            jobs = [
                pool.submit(accounts[name].add, image, target, still.get(name))
                for name, image in images.items()
            ]
            everywhere = np.ones_like(sector)  # the field is exact even where the source ends
            points = data.keypoints[t]
            exact.add(t, ExactFrame(truth, flow, everywhere, points), images, deformation)
            for job in jobs:
                job.result()
            if t in shown:
                seen = (data.driving[t], prediction, deformation, data.truth[t])
                samples.append(Sample(t, *seen))
    measures, followed = exact.result()
    result = PairResult(
        pair=pair.name,
        source=pair.source.name,
        driving=pair.driving.name,
        subjects=(pair.source.subject, pair.driving.subject),
        group=pair.source.group,
        split=pair.split,
        aligned_by=aligned_by,
        frames=len(data.driving),
        driven=len(indices),
        mean_flow=exact.mean_motion,
        methods={name: account.result() for name, account in accounts.items()},
        exact=measures,
    )
    for i, sample in enumerate(samples):
        k = indices.index(sample.number)
        samples[i] = sample._replace(true=followed.true[k], tracked=followed.tracked[k])
    return result, Pictures(data.source, samples, start=data.start)


def _align(animator: Animator, data: PairData, alignment: str) -> str:
    """Align source and reference, and say by what, as `aligned_by` does.

    Raises:
        InputError: no landmark is labelled in both frames.
    """
    if alignment == "none":
        return NOT_ALIGNED
    if alignment == "auto":
        found = align_pair(animator, "auto", Picture(data.source), Picture(data.driving[0]))
        return ", ".join([*found.names, *["pictures"] * found.pictures]) or NOT_ALIGNED
    both = np.stack([data.start, data.reference])
    inside = ((both >= -0.5) & (both <= len(data.source) - 0.5)).all(axis=(0, 2))  # no nan is
    if not inside.any():
        raise InputError(
            f"the pair {data.pair.name!r}: no landmark is labelled in frame 0 of both its clips",
            "label them in keypoints.csv, or give --alignment none",
        )
    pictures = alignment == "given" and animator.session.can_register
    animator.align(*both[:, inside], pictures=pictures)
    return ", ".join([*np.array(data.names)[inside].tolist(), *["pictures"] * pictures])


def _visible(flow: FloatImage, sector: Mask) -> Mask:
    """Where a flow reads inside of the sector."""
    at = pixel_grid(*sector.shape) + flow
    return np.asarray(read_at(sector.astype(np.float32), at) > 0.5)
