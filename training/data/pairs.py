"""Training pairs: two frames of one clip, augmented alike, as a pure function of (seed, step).

Nothing is remembered from one batch to the next, so a resumed run draws what an unbroken one would
have drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.support.errors import ConfigError, InputError
from ..config import DataConfig, LossConfig
from .appearance import blackout, other_light, other_speckle
from .batch import FlowWeights, PairBatch, flow_weights
from .dataset import ClipFrames
from .flow import exact_flow, has_content, measured_flow
from .transforms import IDENTITY, PlaneMap, random_bend, similarity, tone_curve

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


class _Labels(NamedTuple):
    points: FloatArray
    visible: Mask
    absent: Mask


class _Pair(NamedTuple):
    source: FloatArray
    driving: FloatArray
    source_labels: _Labels
    driving_labels: _Labels
    flow: tuple[FloatArray, Mask] | None  # and where it is valid
    exact: bool
    bent: bool


class PairSampler:
    """Draws pairs: a group, a subject of it, a clip of that, each uniformly, and two of its frames.
    (METHOD: sample by anatomy, not by clip. Nor does a subject filmed often crowd out the others:
    a model soon knows by heart what few subjects look like.)

    Args:
        clips: the clips' frames, all of one size, channel count and list of keypoints.
        data: how pairs are drawn.
        seed: with the step, all that the draw depends on.
        batch_size: B.
        loss: flow whose weight is 0 is not computed; None computes it at every step.

    When some frames are labelled and some are not, a pair of a group that has labels gets, with
    probability ``labelled_fraction``, a labelled driving frame. Labels never change how often a
    group is drawn: one that is labelled throughout must not crowd out those that have none.

    A label that nothing of a group has is absent from it: weak supervision learns from this where
    an anatomy does not show a landmark.

    The flow of a pair is exact for a clip with a displacement, and for a frame and its own bend;
    else it is measured.

    Raises:
        InputError: no clips, or clips that do not fit together.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        clips: Sequence[ClipFrames],
        data: DataConfig,
        seed: int,
        *,
        batch_size: int,
        loss: LossConfig | None = None,
    ) -> None:
        if not clips:
            raise InputError("no clip to draw pairs from", "check --data and the split")
        first = clips[0]
        for clip in clips:
            same = clip.frames.shape[1:] == first.frames.shape[1:]
            if not same or clip.keypoint_names != first.keypoint_names:
                raise InputError(
                    f"{clip.clip.name!r} and {first.clip.name!r} differ in size, channels "
                    "or keypoints",
                    "load all clips alike",
                )
        _check(data, batch_size)
        self._data = data
        self._loss = loss
        self._seed = seed
        self._batch_size = batch_size
        self._size = int(first.frames.shape[1])
        self._groups = _by_group(clips)
        self._labelled = {id(clip): np.flatnonzero(clip.visible.any(axis=1)) for clip in clips}
        labels = [len(self._labelled[id(clip)]) / len(clip.frames) for clip in clips]
        # By group, the labels that it never has.
        self._never = {
            group[0].clip.group: ~np.any([clip.visible.any(axis=0) for clip in group], axis=0)
            for group in self._groups
        }
        self._partly_labelled = 0 < sum(labels) < len(labels)

    def batch(self, step: int) -> PairBatch:
        """The batch of a step; the same for the same (seed, step), whatever was drawn before."""
        rng = np.random.default_rng([self._seed, step])
        pairs = [self._pair(rng, step) for _ in range(self._batch_size)]
        flow, valid = self._flows(pairs)
        exact = torch.tensor([pair.exact for pair in pairs])
        return PairBatch(
            _images([pair.source for pair in pairs]),
            _images([pair.driving for pair in pairs]),
            _stack([pair.source_labels.points for pair in pairs]),
            _stack([pair.driving_labels.points for pair in pairs]),
            _stack([pair.source_labels.visible for pair in pairs]),
            _stack([pair.driving_labels.visible for pair in pairs]),
            flow,
            valid,
            exact if flow is not None else None,
            torch.tensor([pair.bent for pair in pairs]),
            _stack([pair.source_labels.absent for pair in pairs]),
            _stack([pair.driving_labels.absent for pair in pairs]),
        )

    def _flows(self, pairs: Sequence[_Pair]) -> tuple[Tensor | None, Tensor | None]:
        if all(pair.flow is None for pair in pairs):
            return None, None
        side = self._size // 4
        none = np.zeros((side, side, 2), np.float32), np.zeros((side, side), np.bool_)
        known = [pair.flow or none for pair in pairs]
        return _stack([flow for flow, _ in known]), _stack([valid for _, valid in known])

    def _pair(self, rng: np.random.Generator, step: int) -> _Pair:
        group = self._groups[int(rng.integers(len(self._groups)))]
        clip, d = self._draw_driving(rng, group)
        reach = self._reach(step, len(clip.frames))
        others = [
            t for t in range(max(0, d - reach), min(len(clip.frames), d + reach + 1)) if t != d
        ]
        synthetic = rng.uniform() < self._synthetic(step) or not others
        placed, tone_s, tone_d = self._augmentation(rng)
        wanted = self._wanted_flow(step)
        if synthetic:
            return self._synthetic_pair(rng, clip, d, placed, tone_s, tone_d, wanted)
        s = others[
            int(rng.integers(len(others)))
        ]  # before d as often as after it: METHOD's time flip
        return self._real_pair(clip, s, d, placed, tone_s, tone_d, wanted)

    def _wanted_flow(self, step: int) -> FlowWeights:
        """Which flow is worth its time; as weights, of which only being 0 matters."""
        if self._data.flow == "none":
            return FlowWeights(0, 0)
        # A match learns how far to trust itself to the end.
        loss = self._loss
        if loss is None or (loss.flow > 0 and loss.doubt > 0):
            return FlowWeights(1, 1)
        return flow_weights(loss, step)

    def _draw_driving(
        self, rng: np.random.Generator, group: Sequence[ClipFrames]
    ) -> tuple[ClipFrames, int]:
        if self._partly_labelled and rng.uniform() < self._data.labelled_fraction:
            group = [clip for clip in group if len(self._labelled[id(clip)])] or group
            clip = _draw_clip(rng, group)
            labelled = self._labelled[id(clip)]
            if len(labelled):
                return clip, int(labelled[int(rng.integers(len(labelled)))])
        else:
            clip = _draw_clip(rng, group)
        return clip, int(rng.integers(len(clip.frames)))

    def _synthetic(self, step: int) -> float:
        """The share of synthetic pairs.

        A bend moves the image's border too, which no real clip does: they stop early.
        """
        data = self._data
        return data.synthetic if data.synthetic_until == 0 or step < data.synthetic_until else 0.0

    def _reach(self, step: int, count: int) -> int:
        """How far apart a pair may be: near_start at first, the whole clip after near_steps."""
        data = self._data
        if step >= data.near_steps or count - 1 <= data.near_start:
            return count - 1
        return int(data.near_start + (count - 1 - data.near_start) * step / data.near_steps)

    def _augmentation(self, rng: np.random.Generator) -> tuple[PlaneMap, FloatArray, FloatArray]:
        data = self._data
        if not data.augment:
            plain = tone_curve(1, 1)
            return IDENTITY, plain, plain
        scale = float(rng.uniform(*data.scale))
        degrees = float(rng.uniform(-data.rotation, data.rotation))
        shift_x, shift_y = (float(v) for v in rng.uniform(-2 * data.shift, 2 * data.shift, 2))
        flip = data.flip and bool(rng.uniform() < 0.5)
        # Drawn evenly in the logarithm: halving is as common as doubling.
        gain, gamma = (
            float(np.exp(rng.uniform(*np.log(range_)))) for range_ in (data.gain, data.gamma)
        )
        tones = [tone_curve(gain * float(np.exp(rng.normal(0, 0.02))), gamma) for _ in range(2)]
        return similarity(scale, degrees, (shift_x, shift_y), flip), tones[0], tones[1]

    def _real_pair(
        self,
        clip: ClipFrames,
        s: int,
        d: int,
        placed: PlaneMap,
        tone_s: FloatArray,
        tone_d: FloatArray,
        wanted: FlowWeights,
    ) -> _Pair:
        images = [np.asarray(clip.frames[t]) for t in (s, d)]
        if placed is not IDENTITY:
            images = [placed.apply(image) for image in images]
        source, driving = tone_s[images[0]], tone_d[images[1]]
        labels = [_carried(placed, self._labels(clip, t)) for t in (s, d)]
        flow, exact = None, clip.displacement is not None
        if clip.displacement is not None and clip.sector is not None and wanted.exact:
            fields = clip.displacement[s], clip.displacement[d]
            flow = exact_flow(*fields, clip.sector, placed)
        elif not exact and wanted.measured:
            flow = measured_flow(source, driving)
        return _Pair(source, driving, *labels, flow, exact, bent=False)

    def _labels(self, clip: ClipFrames, t: int) -> _Labels:
        absent = self._never[clip.clip.group]
        if clip.absent is not None:
            absent = absent | clip.absent[t]
        return _Labels(clip.points[t], clip.visible[t], absent)

    def _synthetic_pair(
        self,
        rng: np.random.Generator,
        clip: ClipFrames,
        t: int,
        placed: PlaneMap,
        tone_s: FloatArray,
        tone_d: FloatArray,
        wanted: FlowWeights,
    ) -> _Pair:
        """A frame and its own deformation. Both are interpolated ONCE: neither is the blurrier."""
        bend = random_bend(rng, self._data.bend)
        image = np.asarray(clip.frames[t])
        source = tone_s[placed.apply(image) if placed is not IDENTITY else image]
        bent = bend.after(placed)
        driving = tone_d[bent.apply(image)]
        labels = self._labels(clip, t)
        source_labels = _carried(placed, labels)
        # Not from where the source has them: what left it may be back.
        driving_labels = _carried(bent, labels)
        flow = None
        if wanted.exact:
            known = np.ascontiguousarray(bend.grid(self._size // 4).transpose(1, 2, 0))
            valid = (np.abs(known) < 1).all(axis=-1) & has_content(driving, self._size // 4)
            flow = known, valid
        source, driving = self._other_looks(rng, source, driving)
        return _Pair(source, driving, source_labels, driving_labels, flow, exact=True, bent=True)

    def _other_looks(
        self, rng: np.random.Generator, source: FloatArray, driving: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """A frame and its own bend, as different as two frames are."""
        data = self._data
        if data.speckle < 1:
            driving = other_speckle(driving, rng, data.speckle)
        if data.light > 0:
            source, driving = (other_light(image, rng, data.light) for image in (source, driving))
        if rng.uniform() < data.blackout:
            driving = blackout(driving, rng)
        return source, driving


def _check(data: DataConfig, batch_size: int) -> None:
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}", "at least 1")
    for name in ("synthetic", "labelled_fraction", "speckle", "blackout"):
        if not 0 <= getattr(data, name) <= 1:
            raise ConfigError(f"data.{name} is {getattr(data, name)}", "a fraction from 0 to 1")
    for name in ("scale", "gain", "gamma"):
        low, high = getattr(data, name)
        if not 0 < low <= high:
            raise ConfigError(
                f"data.{name} is {low}, {high}", "two factors above 0, the lower one first"
            )
    for name in ("shift", "rotation", "light", "bend"):
        if getattr(data, name) < 0:
            raise ConfigError(f"data.{name} is {getattr(data, name)}", "0 or more")
    if data.near_start < 1:
        raise ConfigError(f"data.near_start is {data.near_start}", "at least 1 frame")


def _by_group(clips: Sequence[ClipFrames]) -> list[list[ClipFrames]]:
    groups: dict[str, list[ClipFrames]] = {}
    for clip in clips:
        groups.setdefault(clip.clip.group, []).append(clip)
    return [groups[name] for name in sorted(groups)]


def _draw_clip(rng: np.random.Generator, group: Sequence[ClipFrames]) -> ClipFrames:
    subjects = sorted({clip.clip.subject for clip in group})
    subject = subjects[int(rng.integers(len(subjects)))]
    theirs = [clip for clip in group if clip.clip.subject == subject]
    return theirs[int(rng.integers(len(theirs)))]


def _stack(arrays: Sequence[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _images(images: Sequence[FloatArray]) -> Tensor:
    """(S, S) or (S, S, 3) each -> (B, C, S, S)."""
    batch = np.stack(images)
    batch = batch[:, None] if batch.ndim == 3 else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    return torch.from_numpy(batch)


def _carried(map_: PlaneMap, labels: _Labels) -> _Labels:
    """Labels after a map; those that left the frame are no longer visible."""
    points, visible, absent = labels
    if not len(points):
        return labels
    moved = map_.carry(points.astype(np.float64)).astype(np.float32)
    inside = visible & (np.abs(moved) <= 1).all(axis=-1)
    moved[~inside] = 0
    return _Labels(moved, inside, absent | (visible & ~inside))
