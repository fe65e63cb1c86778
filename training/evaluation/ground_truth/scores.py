"""An account against the exact field: skill, endpoint error, landmarks.

    skill = (L1_hold - L1_method) / (L1_hold - L1_oracle), L1 = sum |y - x| over the sector

The oracle is the source warped by the exact field, which no model can know: hold has skill 0, the
oracle 1. Source: METHOD, "The phantom".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....runtime.media.video import open_source
from ...data.dataset import ClipFrames
from ...data.frame_cache import cached_frames
from ..landmarks import (
    Followed,
    LandmarkError,
    Points,
    labelled_pixels,
    mean_error,
    measure,
    track,
)
from ..metrics import FloatImage, Image, Mask, deformation_flow, length, ratio, to_float, to_levels
from .fields import flow_between
from .readers import Field, read_field

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Exact:
    """The measures of one clip or pair that only an exact field allows; nan where undefined.

    Attributes:
        l1: by method, mean over frames and the sector's pixels, in [0, 1].
        skill: by method.
        endpoint_error: mean |F_model - F| inside of the sector, F_model the deformation, in pixels.
        endpoint_hold: the same of a held source: mean |F|.
        landmarks: by name; `landmark` is the mean over them, `landmark_ratio` its share of hold's.
    """

    l1: dict[str, float]
    skill: dict[str, float]
    endpoint_error: float
    endpoint_hold: float
    landmarks: dict[str, LandmarkError]
    landmark: LandmarkError | None
    landmark_ratio: float


class ExactFrame(NamedTuple):
    """The truth of one frame: x, F(x->S), where F is known, landmarks (P, 2) or nan."""

    image: Image
    flow: FloatImage
    known: Mask
    points: Points


class ExactAccount:
    """Accumulates the frames of one clip or pair.

    Args:
        source: S, the still (H, W).
        sector: (H, W).
        geometry: of the model's deformation.
        names, start: the P landmarks and their places (P, 2) in the source, nan where unknown.
    """

    def __init__(
        self, source: Image, sector: Mask, geometry: str, names: Sequence[str], start: Points
    ) -> None:
        self._source = source
        self._sector = sector
        self._geometry = geometry
        self._names = tuple(names)
        self._start = start
        self._sums: dict[str, float] = {}
        self._frames = 0
        self._error, self._motion, self._pixels = 0.0, 0.0, 0
        self._kept: list[tuple[int, dict[str, Picture], Points]] = []

    def add(
        self,
        position: int,
        truth: ExactFrame,
        images: Mapping[str, Image],
        deformation: FloatImage,
    ) -> None:
        """Add one frame, in time order.

        Args:
            position: its place from the source, for the tracker: below 0 is before it.
            images: (H, W) by method, among them model, hold and oracle.
            deformation: the model's, (h, w, 2).
        """
        x = to_float(truth.image)[self._sector]
        for name, image in images.items():
            miss = np.abs(to_float(image)[self._sector] - x).mean(dtype=np.float64)
            self._sums[name] = self._sums.get(name, 0.0) + float(miss)
        self._frames += 1
        at = truth.known & self._sector
        height, width = self._sector.shape
        flow = deformation_flow(deformation, height, width, self._geometry)
        self._error += float(length(flow - truth.flow)[at].sum(dtype=np.float64))
        self._motion += float(length(truth.flow)[at].sum(dtype=np.float64))
        self._pixels += int(at.sum())
        seen = {"model": images["model"], "oracle": images["oracle"], "truth": truth.image}
        kept = {name: np.array(to_levels(image)) for name, image in seen.items()}
        self._kept.append((position, kept, truth.points))

    @property
    def mean_motion(self) -> float:
        """Mean |F| so far, in pixels."""
        return ratio(self._motion, self._pixels)

    def result(self) -> tuple[Exact, Followed]:
        """The measures, and the landmarks' ways in the order of the frames added."""
        hold, oracle = self._sums["hold"], self._sums["oracle"]
        followed = self._follow()
        landmark = mean_error(followed.errors.values())
        exact = Exact(
            l1={name: total / self._frames for name, total in self._sums.items()},
            skill={name: ratio(hold - s, hold - oracle) for name, s in self._sums.items()},
            endpoint_error=ratio(self._error, self._pixels),
            endpoint_hold=self.mean_motion,
            landmarks=followed.errors,
            landmark=landmark,
            landmark_ratio=math.nan if landmark is None else landmark.share,
        )
        return exact, followed

    def _follow(self) -> Followed:
        after = [k for k, kept in enumerate(self._kept) if kept[0] >= 0]
        before = [k for k, kept in enumerate(self._kept) if kept[0] < 0][::-1]
        shape = (len(self._kept), *self._start.shape)
        paths: dict[str, Points] = {}
        for name in ("model", "oracle", "truth"):
            path = paths[name] = np.full(shape, np.nan)
            for way in (before, after):
                frames = (self._kept[k][1][name] for k in way)
                path[way] = track(self._source, frames, self._start)
        true = np.stack([points for _, _, points in self._kept])
        return measure(self._names, self._start, true, paths)


def clip_truth(path: Path, frames: ClipFrames) -> Callable[[], ClipTruth]:
    """The truth of a clip, to be read when its turn comes: it is too large to keep.

    Args:
        path: of the field (`Clip.displacement`).
        frames: the clip as the model sees it; `indices` leads to the field's frames.

    Raises:
        InputError: it cannot be read, or does not fit the clip.
    """
    clip, box = frames.clip, frames.letterbox
    channels = 1 if frames.frames.ndim == 3 else frames.frames.shape[3]
    # All frames that the clip has, before repeats were dropped.
    count = len(cached_frames(clip.path, clip.crop, box.size, channels).kept)
    with open_source(clip.path) as source:
        width, height = source.size

    def read() -> ClipTruth:
        return ClipTruth(read_field(path, count, (height, width), clip.crop, box), frames)

    read()  # now, not after minutes of work
    return read


class ClipTruth:
    """The truth of a clip between any two of its frames, counted without repeats."""

    def __init__(self, exact: Field, frames: ClipFrames) -> None:
        self._displacement = exact.displacement
        self._frames = frames
        self.sector = exact.sector
        self.names = frames.keypoint_names
        self._labels = labelled_pixels(frames)

    def points(self, i: int) -> Points:
        """The labels of frame i, (P, 2) pixels of the model's frame, nan where there is none."""
        return self._labels[i]

    def flow(self, driving: int, source: int) -> tuple[FloatImage, Mask]:
        """F from a driving frame to a source frame, and where it is known."""
        d, s = self._displacement[self._frames.indices[[driving, source]]]
        return flow_between(d, s)
