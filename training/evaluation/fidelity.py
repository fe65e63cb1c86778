"""One method on one clip: its frames compared with the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .metrics import (
    LOW_PASS_SIGMA,
    TEMPORAL_SIGMA,
    FloatImage,
    FlowError,
    Image,
    Mask,
    Spread,
    blur,
    consistent_pixels,
    dis,
    farneback,
    high_pass,
    masked_sum,
    psnr,
    ratio,
    ssim,
    to_float,
)

FLOWS = (dis, farneback)


class Target(NamedTuple):
    """A real frame and what every method is compared with, made by `Targets.frame`."""

    x: FloatImage
    held_difference: float
    held_low_pass_difference: float
    high: FloatImage
    motions: tuple[tuple[FloatImage, Mask], ...]
    """By FLOWS: F(x->S) (H, W, 2), and where it is known (H, W)."""
    change: FloatImage | None
    """G_3 of the difference from the frame before; None after a gap."""


class Targets:
    """Makes the targets of one clip, in time order, from its source and mask (H, W)."""

    def __init__(self, source: Image, mask: Mask) -> None:
        self.source = source
        self.mask = mask
        self._held = to_float(source)
        self._before: FloatImage | None = None

    def frame(self, image: Image, exact: tuple[FloatImage, Mask] | None = None) -> Target:
        """The next real frame; `exact` is F(x->S) and where it is known, instead of dense flows."""
        x = to_float(image)
        held = self._held - x
        motions = []
        for flow in FLOWS:
            if exact is None:
                forward = flow(image, self.source)
                known = consistent_pixels(forward, flow(self.source, image))
            else:
                forward, known = exact
            motions.append((forward, known & self.mask))
        change = None if self._before is None else blur(x - self._before, TEMPORAL_SIGMA)
        self._before = x
        return Target(
            x=x,
            held_difference=masked_sum(held, self.mask),
            held_low_pass_difference=masked_sum(blur(held, LOW_PASS_SIGMA), self.mask),
            high=high_pass(x)[self.mask],
            motions=tuple(motions),
            change=None if change is None else change[self.mask],
        )

    def flows_of(self, y: Image) -> list[FloatImage]:
        """F(y->S) of a frame, by FLOWS."""
        return [flow(y, self.source) for flow in FLOWS]

    def gap(self) -> None:
        """The next frame has no frame before it."""
        self._before = None


class Account:
    """The measures of one method on one clip."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._mask = targets.mask
        self._before: FloatImage | None = None
        self._sums = np.zeros(4)  # |y - x|, |S - x|, and both after G_4
        self._motions = [FlowError() for _ in FLOWS]
        self._sharpness = Spread()
        self._temporal = Spread()
        self._plain: list[tuple[float, float, float]] = []

    def add(self, y: Image, target: Target, flows: Sequence[FloatImage] | None = None) -> None:
        """Add a frame of the method, with its F(y->S) by FLOWS where it is known already."""
        image, mask = to_float(y), self._mask
        difference = image - target.x
        self._sums += (
            masked_sum(difference, mask),
            target.held_difference,
            masked_sum(blur(difference, LOW_PASS_SIGMA), mask),
            target.held_low_pass_difference,
        )
        self._sharpness.add(high_pass(image)[mask], target.high)
        flows = self._targets.flows_of(y) if flows is None else flows
        for error, flow, motion in zip(self._motions, flows, target.motions, strict=True):
            error.add(flow, *motion)
        if target.change is not None and self._before is not None:
            change = blur(image - self._before, TEMPORAL_SIGMA)[mask]
            self._temporal.add(change, target.change)
        self._before = image
        l1 = float(np.abs(difference).mean(dtype=np.float64))
        self._plain.append((l1, psnr(image, target.x), ssim(image, target.x)))

    @property
    def mean_flow(self) -> float:
        """Mean |F(x->S)| of DIS over the known pixels, in pixels; nan without any."""
        return self._motions[0].mean_motion

    def result(self) -> dict[str, float]:
        """The measures over all frames (see `metrics`); nan where one is not defined.

        l1, psnr and ssim are means over frames, of ALL pixels in [0, 1].
        """
        error, held, low, held_low = self._sums.tolist()
        by_dis, by_farneback = (motion.agreement() for motion in self._motions)
        l1, peak, similarity = np.mean(self._plain, axis=0).tolist()
        return {
            "l1_ratio": ratio(error, held),
            "low_pass_ratio": ratio(low, held_low),
            "sharpness": self._sharpness.ratio(),
            "motion_agreement": by_dis,
            "farneback_agreement": by_farneback,
            "temporal_ratio": self._temporal.ratio(),
            "temporal_correlation": self._temporal.correlation(),
            "l1": l1,
            "psnr": peak,
            "ssim": similarity,
        }
