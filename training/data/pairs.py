"""Training pairs: two frames of one clip, augmented alike, as a pure function of (seed, step).

Nothing is remembered between batches, so a resumed run draws what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...runtime.support.errors import InputError
from ..config import DataConfig, LossConfig
from .appearance import blackout, other_light, other_speckle
from .batch import FlowWeights, PairBatch, flow_weights
from .dataset import ClipFrames
from .flow import exact_flow, has_content, measured_flow
from .transforms import IDENTITY, PlaneMap, random_bend, similarity, tone_curve

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


class _Shot(NamedTuple):
    """One frame of a pair, with its labels."""

    image: FloatArray
    points: FloatArray
    visible: Mask
    absent: Mask


class _Pair(NamedTuple):
    source: _Shot
    driving: _Shot
    flow: tuple[FloatArray, Mask] | None  # and where it is valid
    exact: bool
    bent: bool


class PairSampler:
    """Draws pairs: a group, a subject of it, a clip of that, each uniformly, and two of its frames.
    So neither an anatomy nor a subject with many clips crowds out the others.

    Where only some frames are labelled, a pair of a group with labels gets a labelled driving frame
    with probability ``labelled_fraction``. A label that no clip of a group has is absent from it.
    Flow is exact for a clip with a displacement and for a frame and its own bend, else measured.

    Args:
        clips: all of one size, channel count and list of keypoints.
        seed: with the step, all that the draw depends on.
        loss: flow whose weight is 0 is not computed; None computes it at every step.

    Raises:
        InputError: no clips, or clips that do not fit together.
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
                names = f"{clip.clip.name!r} and {first.clip.name!r}"
                raise InputError(
                    f"{names} differ in size, channels or keypoints", "load them alike"
                )
        self._data, self._loss = data, loss
        self._seed, self._batch_size = seed, batch_size
        self._size = int(first.frames.shape[1])
        groups: dict[str, list[ClipFrames]] = {}
        for clip in clips:
            groups.setdefault(clip.clip.group, []).append(clip)
        self._groups = [groups[name] for name in sorted(groups)]
        self._labelled = {id(clip): np.flatnonzero(clip.visible.any(axis=1)) for clip in clips}
        shares = [len(self._labelled[id(clip)]) / len(clip.frames) for clip in clips]
        self._partly_labelled = 0 < sum(shares) < len(shares)
        self._never = {
            name: ~np.any([clip.visible.any(axis=0) for clip in group], axis=0)
            for name, group in groups.items()
        }

    def batch(self, step: int) -> PairBatch:
        """The batch of a step; the same for the same (seed, step), whatever was drawn before."""
        rng = np.random.default_rng([self._seed, step])
        pairs = [self._pair(rng, step) for _ in range(self._batch_size)]
        sources, drivings = [pair.source for pair in pairs], [pair.driving for pair in pairs]
        flow = valid = exact = None
        if any(pair.flow for pair in pairs):
            side = self._size // 4
            none = np.zeros((side, side, 2), np.float32), np.zeros((side, side), np.bool_)
            known = [pair.flow or none for pair in pairs]
            flow, valid = (_stack(parts) for parts in zip(*known, strict=True))
            exact = torch.tensor([pair.exact for pair in pairs])
        return PairBatch(
            source=_images(sources),
            driving=_images(drivings),
            source_points=_stack(shot.points for shot in sources),
            driving_points=_stack(shot.points for shot in drivings),
            source_visible=_stack(shot.visible for shot in sources),
            driving_visible=_stack(shot.visible for shot in drivings),
            flow=flow,
            flow_valid=valid,
            flow_exact=exact,
            bent=torch.tensor([pair.bent for pair in pairs]),
            source_absent=_stack(shot.absent for shot in sources),
            driving_absent=_stack(shot.absent for shot in drivings),
        )

    def _pair(self, rng: np.random.Generator, step: int) -> _Pair:
        group = self._groups[int(rng.integers(len(self._groups)))]
        clip, d = self._draw_driving(rng, group)
        count, data = len(clip.frames), self._data
        reach = count - 1  # the whole clip after near_steps, near_start at first
        if step < data.near_steps and data.near_start < reach:
            reach = int(data.near_start + (reach - data.near_start) * step / data.near_steps)
        others = [t for t in range(max(0, d - reach), min(count, d + reach + 1)) if t != d]
        # A bend moves the image's border too, which no real clip does: they stop early.
        bends = data.synthetic_until == 0 or step < data.synthetic_until
        bent = rng.uniform() < (data.synthetic if bends else 0.0) or not others
        placed, source_tone, driving_tone = self._augmentation(rng)
        bend, s = None, d
        if bent:
            bend = random_bend(rng, data.bend)
        else:
            s = others[int(rng.integers(len(others)))]  # before d as often as after it
        # Both are interpolated once, so that neither is blurrier. Labels come from the clip, since
        # what left the source may come back.
        source = self._shot(clip, s, placed, source_tone)
        driving = self._shot(clip, d, bend.after(placed) if bend else placed, driving_tone)
        wanted, flow = self._wanted_flow(step), None
        if bend:
            if wanted.exact:
                flow = self._flow_of(bend, driving.image)
            source, driving = self._other_looks(rng, source, driving)
        elif clip.displacement is not None and clip.sector is not None:
            if wanted.exact:
                flow = exact_flow(clip.displacement[s], clip.displacement[d], clip.sector, placed)
        elif wanted.measured:
            flow = measured_flow(source.image, driving.image)
        return _Pair(source, driving, flow, bent or clip.displacement is not None, bent)

    def _draw_driving(
        self, rng: np.random.Generator, group: Sequence[ClipFrames]
    ) -> tuple[ClipFrames, int]:
        """A clip of the group and one of its frames."""
        prefer = self._partly_labelled and rng.uniform() < self._data.labelled_fraction
        if prefer:
            group = [clip for clip in group if len(self._labelled[id(clip)])] or group
        subjects = sorted({clip.clip.subject for clip in group})
        subject = subjects[int(rng.integers(len(subjects)))]
        theirs = [clip for clip in group if clip.clip.subject == subject]
        clip = theirs[int(rng.integers(len(theirs)))]
        labelled = self._labelled[id(clip)]
        if prefer and len(labelled):
            return clip, int(labelled[int(rng.integers(len(labelled)))])
        return clip, int(rng.integers(len(clip.frames)))

    def _wanted_flow(self, step: int) -> FlowWeights:
        """Which flow to compute: where the weight is not 0."""
        if self._data.flow == "none":
            return FlowWeights(0, 0)
        # A match learns its own error to the end.
        loss = self._loss
        if loss is None or (loss.flow > 0 and loss.doubt > 0):
            return FlowWeights(1, 1)
        return flow_weights(loss, step)

    def _augmentation(self, rng: np.random.Generator) -> tuple[PlaneMap, FloatArray, FloatArray]:
        """The map that both frames are read through, and the tone curve of each."""
        data = self._data
        if not data.augment:
            return IDENTITY, tone_curve(1, 1), tone_curve(1, 1)
        scale = float(rng.uniform(*data.scale))
        degrees = float(rng.uniform(-data.rotation, data.rotation))
        shift_x, shift_y = (float(v) for v in rng.uniform(-2 * data.shift, 2 * data.shift, 2))
        flip = data.flip and bool(rng.uniform() < 0.5)
        # Drawn evenly in the logarithm: halving is as common as doubling.
        gain, gamma = (
            float(np.exp(rng.uniform(*np.log(range_)))) for range_ in (data.gain, data.gamma)
        )
        one, other = (
            tone_curve(gain * float(np.exp(rng.normal(0, 0.02))), gamma) for _ in range(2)
        )
        return similarity(scale, degrees, (shift_x, shift_y), flip), one, other

    def _shot(self, clip: ClipFrames, t: int, map_: PlaneMap, tone: FloatArray) -> _Shot:
        """A frame and its labels through a map; labels that leave the frame become absent."""
        image = np.asarray(clip.frames[t])
        image = image if map_ is IDENTITY else map_.apply(image)
        points, visible, absent = clip.points[t], clip.visible[t], self._never[clip.clip.group]
        if clip.absent is not None:
            absent = absent | clip.absent[t]
        if len(points):
            points = map_.carry(points.astype(np.float64)).astype(np.float32)
            inside = visible & (np.abs(points) <= 1).all(axis=-1)
            points[~inside] = 0
            visible, absent = inside, absent | (visible & ~inside)
        return _Shot(tone[image], points, visible, absent)

    def _flow_of(self, bend: PlaneMap, driving: FloatArray) -> tuple[FloatArray, Mask]:
        side = self._size // 4
        known = np.ascontiguousarray(bend.grid(side).transpose(1, 2, 0))
        return known, (np.abs(known) < 1).all(axis=-1) & has_content(driving, side)

    def _other_looks(
        self, rng: np.random.Generator, source: _Shot, driving: _Shot
    ) -> tuple[_Shot, _Shot]:
        """Make a frame and its own bend look as different as two frames do."""
        data, one, other = self._data, source.image, driving.image
        if data.speckle < 1:
            other = other_speckle(other, rng, data.speckle)
        if data.light > 0:
            one, other = (other_light(image, rng, data.light) for image in (one, other))
        if rng.uniform() < data.blackout:
            other = blackout(other, rng)
        return source._replace(image=one), driving._replace(image=other)


def _stack(arrays: Iterable[NDArray[np.generic]]) -> Tensor:
    return torch.from_numpy(np.stack(list(arrays)))


def _images(shots: Sequence[_Shot]) -> Tensor:
    """(S, S) or (S, S, 3) each -> (B, C, S, S)."""
    batch = np.stack([shot.image for shot in shots])
    batch = batch[:, None] if batch.ndim == 3 else np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
    return torch.from_numpy(batch)
