"""One clip, judged frame by frame: what is known of the target, and an account against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .metrics import (
    LOW_PASS_SIGMA,
    MOVING_PIXELS,
    TEMPORAL_SIGMA,
    FloatImage,
    Flow,
    Image,
    Mask,
    Spread,
    blur,
    consistent_pixels,
    high_pass,
    length,
    psnr,
    ratio,
    ssim,
    to_float,
    to_levels,
)


class Fidelity(NamedTuple):
    """The measures of one method on one clip (see `metrics`); nan where one is not defined."""

    l1_ratio: float
    low_pass_ratio: float
    sharpness: float
    motion_agreement: float
    """nan in clips that do not move enough."""
    temporal_ratio: float
    temporal_correlation: float
    l1: float
    """Mean over frames of the mean over ALL pixels of |y - x|, in [0, 1]."""
    psnr: float
    ssim: float


class Target(NamedTuple):
    """A real frame with all that every method is compared with; made by `Targets.frame`."""

    image: Image
    x: FloatImage
    held_difference: float
    held_low_pass_difference: float
    high: FloatImage
    flow: FloatImage
    consistent: Mask
    change: FloatImage | None
    """G_3 of the difference from the frame before, None after a gap."""


class Targets:
    """Makes the targets of one clip, in time order.

    Args:
        source: S, the held frame.
        mask: M, from `metrics.clip_mask`.
    """

    def __init__(self, source: Image, mask: Mask) -> None:
        self.source = source
        self.mask = mask
        self.flow = Flow()
        self._held = to_float(source)
        self._before: FloatImage | None = None

    def frame(self, image: Image, exact: tuple[FloatImage, Mask] | None = None) -> Target:
        """The next real frame (same size as the source).

        Args:
            exact: F(x->S) and where it is known, instead of the dense flow and its consistency.
        """
        x = to_float(image)
        held = self._held - x
        if exact is None:
            forward = self.flow(image, self.source)
            known = consistent_pixels(forward, self.flow(self.source, image))
        else:
            forward, known = exact
        change = None if self._before is None else blur(x - self._before, TEMPORAL_SIGMA)
        self._before = x
        return Target(
            image=image,
            x=x,
            held_difference=masked_sum(held, self.mask),
            held_low_pass_difference=masked_sum(blur(held, LOW_PASS_SIGMA), self.mask),
            high=high_pass(x)[self.mask],
            flow=forward,
            consistent=known & self.mask,
            change=None if change is None else change[self.mask],
        )

    def gap(self) -> None:
        """A frame is left out here: the next one has no frame before it."""
        self._before = None


class Account:
    """Accumulates the measures of one method over the frames of one clip."""

    def __init__(self, targets: Targets) -> None:
        self._mask = targets.mask
        self._source = targets.source
        self._flow = targets.flow
        self._before: FloatImage | None = None
        self._sums = dict.fromkeys(("l1", "held", "low", "held_low", "error", "motion"), 0.0)
        self._moving = 0
        self._sharpness = Spread()
        self._temporal = Spread()
        self._plain: list[tuple[float, float, float]] = []

    def add(self, y: Image, target: Target, flow: FloatImage | None = None) -> None:
        """Add a synthesized frame beside its target.

        Args:
            y: the synthesized frame, of the target's size.
            target: the real frame, from the `Targets` that this account was opened on.
            flow: F(y->S) when it is known already (0 for the held source).
        """
        image, mask = to_float(y), self._mask
        difference = image - target.x
        sums = self._sums
        sums["l1"] += masked_sum(difference, mask)
        sums["held"] += target.held_difference
        sums["low"] += masked_sum(blur(difference, LOW_PASS_SIGMA), mask)
        sums["held_low"] += target.held_low_pass_difference
        self._sharpness.add(high_pass(image)[mask], target.high)
        at = target.consistent
        if at.any():
            flow = self._flow(to_levels(y), self._source) if flow is None else flow
            sums["error"] += masked_sum(length(flow - target.flow), at)
            sums["motion"] += masked_sum(length(target.flow), at)
            self._moving += int(at.sum())
        if target.change is not None and self._before is not None:
            change = blur(image - self._before, TEMPORAL_SIGMA)[mask]
            self._temporal.add(change, target.change)
        self._before = image
        l1 = float(np.abs(difference).mean(dtype=np.float64))
        self._plain.append((l1, psnr(image, target.x), ssim(image, target.x)))

    @property
    def mean_flow(self) -> float:
        """Mean |F(x->S)| over the consistent pixels so far, in pixels; nan where there are none."""
        return ratio(self._sums["motion"], self._moving)

    def result(self) -> Fidelity:
        """The measures over all frames added so far."""
        sums = self._sums
        agreement = math.nan
        if self.mean_flow > MOVING_PIXELS:
            agreement = 1 - sums["error"] / sums["motion"]
        l1, peak, similarity = _means(self._plain)
        return Fidelity(
            l1_ratio=ratio(sums["l1"], sums["held"]),
            low_pass_ratio=ratio(sums["low"], sums["held_low"]),
            sharpness=self._sharpness.ratio(),
            motion_agreement=agreement,
            temporal_ratio=self._temporal.ratio(),
            temporal_correlation=self._temporal.correlation(),
            l1=l1,
            psnr=peak,
            ssim=similarity,
        )


def masked_sum(image: FloatImage, mask: Mask) -> float:
    """sum |image| over the mask."""
    return float(np.abs(image)[mask].sum(dtype=np.float64))


def _means(rows: Sequence[tuple[float, float, float]]) -> list[float]:
    return np.mean(rows, axis=0).tolist() if rows else [math.nan] * 3
