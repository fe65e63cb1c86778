"""Every method on one clip or pair, compared with the truth in one loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from ...runtime.animator import Animator
from .fidelity import FLOWS, Account, Target, Targets
from .ground_truth.scores import ExactAccount
from .loop import SAMPLES, Driven, Picture, Row, Step, drive, spread
from .metrics import FloatImage, Mask, blur, pixel_grid, read_at, to_float, to_levels, warp_by_flow

BLUR_SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def compare(
    animator: Animator,
    methods: Sequence[str],
    source: Picture,
    steps: Iterable[Step],
    *,
    numbers: Sequence[int],
    frames: Sequence[Picture],
    mask: Mask,
    exact: ExactAccount | None = None,
) -> tuple[Row, list[Driven]]:
    """Compare the model and other methods with the truth.

    Args:
        animator: its source and reference are set.
        methods: `model`; `hold`, the source as it is; `blur`, the source blurred by the sigma that
            fits the truth best; `flow`, the source warped by the dense flow to the real frame;
            `oracle`, warped by the exact field; any in the steps' `others`. Without `flow` the
            motion agreement is measured against the exact field, where the mask shows its tissue.
        steps: of the frames of these `numbers`; their truth is in `frames` at the number.
        mask: the pixels that count.
        exact: where the exact field is known.

    Returns:
        the measures, and a few frames for the pictures.
    """
    grey = to_levels(source)
    targets = Targets(grey, mask)
    sigma = best_blur(frames, numbers, source, mask)
    still = {"hold": grey, "blur": to_levels(blur(to_float(source), sigma))}
    nothing = np.zeros((*grey.shape, 2), np.float32)
    flows = {"hold": [nothing] * len(FLOWS), "blur": targets.flows_of(still["blur"])}
    accounts = {name: Account(targets) for name in methods}
    before = 0

    def expect(step: Step) -> tuple[Target, Mapping[str, Picture]]:
        nonlocal before
        if before < 0 <= step.after:
            targets.gap()  # the source's own frame is left out
        before = step.after
        truth, images = to_levels(step.truth), dict(still)
        if "flow" in methods:
            target = targets.frame(truth)
            images["flow"] = to_levels(warp_by_flow(grey, target.motions[0][0]))
        else:
            target = targets.frame(truth, (step.flow, _visible(step.flow, mask)))
        if step.flow is not None:
            images["oracle"] = to_levels(warp_by_flow(grey, step.flow))
        return target, {**images, **step.others}

    def add(name: str, driven: Driven) -> None:
        accounts[name].add(driven.images[name], driven.expected, flows.get(name))

    measures = [partial(add, name) for name in methods] + ([exact.add] if exact else [])
    shown = spread(numbers, SAMPLES)
    samples = drive(animator, steps, measures, shown=shown, expect=expect)
    row: Row = {
        "driven": len(numbers),
        "mean_flow": accounts["model"].mean_flow,
        "methods": {name: account.result() for name, account in accounts.items()},
        "blur_sigma": sigma,
        "exact": exact.result() if exact else None,
    }
    return row, samples


def best_blur(
    frames: Sequence[Picture], indices: Sequence[int], source: Picture, mask: Mask
) -> float:
    """The sigma in BLUR_SIGMAS whose blur of the source has the least L1 to these frames."""
    held = to_float(source)
    blurred = np.stack([blur(held, sigma)[mask] for sigma in BLUR_SIGMAS])
    total = np.zeros(len(BLUR_SIGMAS))
    for i in indices:
        total += np.abs(blurred - to_float(frames[i])[mask]).sum(1, dtype=np.float64)
    return BLUR_SIGMAS[int(np.argmin(total))]


def _visible(flow: FloatImage, mask: Mask) -> Mask:
    """Where a flow reads inside of the mask."""
    at = pixel_grid(*mask.shape) + flow
    return np.asarray(read_at(mask.astype(np.float32), at) > 0.5)
