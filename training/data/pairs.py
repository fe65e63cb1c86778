"""Training pairs: two frames of one clip, augmented alike, as a pure function of (seed, step).

Nothing is remembered between batches, so a resumed run draws what an unbroken one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...runtime.support.errors import InputError
from ..config import DataConfig, LossConfig
from .batch import PairBatch, Sampler, flow_weights
from .clip_frames import ClipFrames
from .flow import exact_flow, has_content, measured_flow
from .label_share import keep_labels, labelled_frames
from .transforms import IDENTITY, PlaneMap, other_looks, random_bend, similarity, tone_curve

AHEAD = 2  # batches that lie ready, beside the one that each thread works on

FloatArray = NDArray[np.float32]
Mask = NDArray[np.bool_]


class PairSampler:
    """Draws pairs: a group, a subject of it, a clip of that, each uniformly, and two of its frames.
    So neither an anatomy nor a subject with many clips crowds out the others.

    Where only some frames are labelled, a pair of a group with labels gets a labelled driving frame
    with probability ``labelled_fraction``. A label that no clip of a group has is absent from it,
    whatever `keep_labels` leaves of the others.
    Flow is exact for a clip with a displacement and for a frame and its own bend, else measured.

    Args:
        clips: all of one size, channel count and list of keypoints, each of two frames or more.
        seed: with the step, all that the draw depends on.
        pairs: which of the batch's pairs to draw, by their places; None: all `batch_size`. What a
            pair is does not depend on which others are drawn.
        loss: flow whose weight is 0 is not computed.

    Raises:
        InputError: no clips.
    """

    def __init__(
        self,
        clips: Sequence[ClipFrames],
        data: DataConfig,
        seed: int,
        *,
        batch_size: int,
        pairs: Sequence[int] | None = None,
        loss: LossConfig = LossConfig(flow=1.0),  # noqa: B008 - it is frozen
    ) -> None:
        if not clips:
            raise InputError("no clip to draw pairs from", "check --data and the split")
        self._data, self._loss = data, loss
        self._seed, self._places = seed, range(batch_size) if pairs is None else pairs
        self._side = int(clips[0].frames.shape[1]) // 4  # of the flow
        self._never = {  # judged by all labels: one that is not used is not absent
            name: ~np.any([clip.visible.any(axis=0) for clip in group], axis=0)
            for name, group in _grouped(clips).items()
        }
        every = clips
        clips = keep_labels(clips, data.label_share, seed)
        #: How many frames keep their labels, and how many had some.
        self.labelled = (labelled_frames(clips), labelled_frames(every))
        self._groups = [group for _, group in sorted(_grouped(clips).items())]
        self._labelled = {id(clip): np.flatnonzero(clip.visible.any(axis=1)) for clip in clips}
        shares = [len(self._labelled[id(clip)]) / len(clip) for clip in clips]
        self._partly_labelled = 0 < sum(shares) < len(shares)

    def batch(self, step: int) -> PairBatch:
        """The batch of a step; the same for the same (seed, step), whatever was drawn before."""
        pairs = [self._pair(step, place) for place in self._places]
        none = np.zeros((self._side, self._side, 2), np.float32)
        filled = [
            pair if pair.flow is not None else pair._replace(flow=none, flow_valid=none[..., 0] > 0)
            for pair in pairs
        ]
        columns = (torch.from_numpy(np.stack(column)) for column in zip(*filled, strict=True))
        batch = PairBatch(*(column.contiguous() for column in columns))
        if all(pair.flow is None for pair in pairs):
            return batch._replace(flow=None, flow_valid=None, flow_exact=None)
        return batch

    def _pair(self, step: int, place: int) -> Any:
        """A `PairBatch` of one pair: arrays without the first axis."""
        rng = np.random.default_rng([self._seed, step, place])
        data = self._data
        measured, exact = self._wanted_flow(step)
        clip, d = self._draw_driving(rng)
        bent = rng.uniform() < data.synthetic
        placed, source_tone, driving_tone = self._augmentation(rng)
        # Both frames are interpolated once, so that neither is blurrier. A bend's labels come from
        # the clip, since what left the source may come back.
        flow = None
        if bent:
            bend = random_bend(rng, data.bend)
            source, *source_labels = self._shot(clip, d, placed, source_tone)
            driving, *driving_labels = self._shot(clip, d, bend.after(placed), driving_tone)
            if exact:
                known = np.ascontiguousarray(bend.grid(self._side).transpose(1, 2, 0))
                inside = (np.abs(known) < 1).all(axis=-1)
                flow = known, inside & has_content(driving, self._side)
            source, driving = other_looks(source, driving, rng, data)
        else:
            s = _one_of([t for t in range(len(clip)) if t != d], rng)
            source, *source_labels = self._shot(clip, s, placed, source_tone)
            driving, *driving_labels = self._shot(clip, d, placed, driving_tone)
            if clip.displacement is None:
                flow = measured_flow(source, driving) if measured else None
            elif exact:
                flow = exact_flow(clip.displacement[s], clip.displacement[d], clip.sector, placed)
        images = (np.atleast_3d(image).transpose(2, 0, 1) for image in (source, driving))
        points, visible, absent = zip(source_labels, driving_labels, strict=True)
        flow, valid = flow or (None, None)
        is_exact = bent or clip.displacement is not None
        return PairBatch(*images, *points, *visible, flow, valid, is_exact, bent, *absent, place)

    def _draw_driving(self, rng: np.random.Generator) -> tuple[ClipFrames, int]:
        """A clip and one of its frames."""
        group = _one_of(self._groups, rng)
        prefer = self._partly_labelled and rng.uniform() < self._data.labelled_fraction
        if prefer:
            group = [clip for clip in group if len(self._labelled[id(clip)])] or group
        subject = _one_of(sorted({clip.clip.subject for clip in group}), rng)
        clip = _one_of([clip for clip in group if clip.clip.subject == subject], rng)
        labelled = self._labelled[id(clip)]
        return clip, int(_one_of(labelled if prefer and len(labelled) else range(len(clip)), rng))

    def _wanted_flow(self, step: int) -> tuple[float, float]:
        """Whether to compute measured and exact flow: where the weight is not 0."""
        if self._data.flow == "none":
            return 0, 0
        if self._loss.flow > 0 and self._loss.doubt > 0:  # a match learns its own error to the end
            return 1, 1
        return flow_weights(self._loss, step)

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
        gain, gamma = (float(np.exp(rng.uniform(*np.log(r)))) for r in (data.gain, data.gamma))
        one, other = (gain * float(np.exp(rng.normal(0, 0.02))) for _ in range(2))
        placed = similarity(scale, degrees, (shift_x, shift_y), flip)
        return placed, tone_curve(one, gamma), tone_curve(other, gamma)

    def _shot(
        self, clip: ClipFrames, t: int, map_: PlaneMap, tone: FloatArray
    ) -> tuple[FloatArray, FloatArray, Mask, Mask]:
        """A frame through a map, its points, which of them are visible, which are absent: also
        those that leave the frame."""
        image, seen = np.asarray(clip.frames[t]), clip.visible[t]
        image = image if map_ is IDENTITY else map_.apply(image)
        points = map_.carry(clip.points[t].astype(np.float64)).astype(np.float32)
        inside = seen & (np.abs(points) <= 1).all(axis=-1)
        points[~inside] = 0
        absent = self._never[clip.clip.group] | (seen & ~inside) | clip.absent[t]
        return tone[image], points, inside, absent


def _grouped(clips: Sequence[ClipFrames]) -> dict[str, list[ClipFrames]]:
    groups: dict[str, list[ClipFrames]] = {}
    for clip in clips:
        groups.setdefault(clip.clip.group, []).append(clip)
    return groups


def _one_of(items: Sequence[Any], rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


@contextmanager
def prefetched(sampler: Sampler, workers: int = 1) -> Iterator[Sampler]:
    """Yields a function that gives exactly what the sampler gives for a step, its exceptions
    included, while threads prepare the batches of the next steps.

    (OpenCV releases the interpreter lock.) Steps asked for out of order are computed all the same.
    """
    pending: dict[int, Future[PairBatch]] = {}

    def batch(step: int) -> PairBatch:
        steps = range(step, step + AHEAD + workers)
        for other in [known for known in pending if known not in steps]:
            pending.pop(other).cancel()
        for ahead in steps:
            pending[ahead] = pending.get(ahead) or pool.submit(sampler, ahead)
        return pending.pop(step).result()

    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
