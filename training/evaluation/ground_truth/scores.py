"""Measures that need the exact field: skill, endpoint error, landmarks.

    skill = (L1_hold - L1_method) / (L1_hold - L1_oracle), L1 = sum |y - x| over the sector

The oracle is the source warped by the exact field.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..landmarks import Points, mean_error, measure, track
from ..loop import Driven, Picture, Row
from ..metrics import FlowError, Image, Mask, deformation_flow, ratio, to_float, to_levels


class ExactAccount:
    """Measures one clip or pair whose exact field is known.

    Args:
        source, sector: (H, W).
        geometry: of the model's deformation.
        names, start: the P landmarks and their places (P, 2) in the source, nan where unknown.

    Attributes:
        tracked: after `result`: the landmarks in the model's frames (T, P, 2), in pixels.
    """

    def __init__(
        self, source: Image, sector: Mask, geometry: str, names: Sequence[str], start: Points
    ) -> None:
        self._source = source
        self._sector = sector
        self._geometry = geometry
        self._names = names
        self._start = start
        self._sums: dict[str, float] = {}
        self._motion = FlowError()
        self._kept: list[tuple[int, dict[str, Picture], Points]] = []
        self.tracked: Points = np.zeros((0, len(start), 2))

    def add(self, driven: Driven) -> None:
        """Add a frame with exact flow and points, and with pictures by `hold` and `oracle`."""
        step = driven.step
        truth = to_levels(step.truth)
        x = to_float(truth)[self._sector]
        for name, image in driven.images.items():
            miss = np.abs(to_float(image)[self._sector] - x).mean(dtype=np.float64)
            self._sums[name] = self._sums.get(name, 0.0) + float(miss)
        at = step.known & self._sector
        flow = deformation_flow(driven.deformation, *at.shape, self._geometry)
        self._motion.add(flow, step.flow, at)
        kept = {name: driven.images[name] for name in ("model", "oracle")} | {"truth": truth}
        self._kept.append((step.after, kept, step.points))

    def result(self) -> Row:
        """The measures.

        Returns:
            l1, skill: by method, l1 the mean over frames and pixels of the sector, in [0, 1];
            endpoint_error: mean |F_model - F| inside of the sector, in pixels; endpoint_hold: mean
            |F|; landmarks: errors by name and method, in pixels; landmark: their mean, None without
            any; landmark_ratio: the model's over hold's.
        """
        hold, oracle = self._sums["hold"], self._sums["oracle"]
        errors = self._follow()
        landmark = mean_error(errors.values())
        return {
            "l1": {name: total / len(self._kept) for name, total in self._sums.items()},
            "skill": {name: ratio(hold - s, hold - oracle) for name, s in self._sums.items()},
            "endpoint_error": self._motion.mean,
            "endpoint_hold": self._motion.mean_motion,
            "landmarks": errors,
            "landmark": landmark,
            "landmark_ratio": ratio(landmark["model"], landmark["hold"]) if landmark else math.nan,
        }

    def _follow(self) -> dict[str, dict[str, float]]:
        """Track the landmarks from the source to both ends of the clip."""
        after = [k for k, kept in enumerate(self._kept) if kept[0] >= 0]
        before = [k for k, kept in enumerate(self._kept) if kept[0] < 0][::-1]
        paths: dict[str, Points] = {}
        for name in ("model", "oracle", "truth"):
            paths[name] = np.full((len(self._kept), *self._start.shape), np.nan)
            for way in (before, after):
                frames = (self._kept[k][1][name] for k in way)
                paths[name][way] = track(self._source, frames, self._start)
        self.tracked = paths["model"]
        true = np.stack([points for _, _, points in self._kept])
        return measure(self._names, self._start, true, paths)
