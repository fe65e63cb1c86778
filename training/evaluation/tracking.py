"""Points followed: labelled points by the model's own motion, landmarks by an independent tracker.

The model's deformation says where a frame reads in the source, so a point p of the source is found
at z with deformation(z) = p. The error is the distance from the label, in pixels of the model's
frame: the mean over points, then frames, then clips (docs/method.md, "How it is judged"). The
tracker is pyramidal Lucas-Kanade (Lucas and Kanade 1981; Bouguet 2000) from frame to frame, on
a grid of points around each landmark. Points whose way there and back does not lead home are
dropped (Kalal et al. 2010). The landmark moves by the mean of the rest; it stays when too few are
left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ..coordinates import points_to_pixels
from ..data.clip_frames import ClipFrames
from ..data.flow import sampled
from .candidate import Candidate
from .loop import SAMPLES, Frame, Picture, Points, Row, spread
from .metrics import Image, dis, finite_mean, ratio, to_levels
from .truth import carried

_CRITERIA = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01)
_LUCAS_KANADE = {"winSize": (15, 15), "maxLevel": 3, "criteria": _CRITERIA}
_REACH, _SIDE = 6.0, 5  # a grid of 5 x 5 points, up to 6 px to each side
_LEAST, _MISS = 6, 1.0  # so many points must come back to within this many pixels


def labelled_pixels(clip: ClipFrames) -> Points:
    """The labels of a clip, (T, P, 2) pixels of the model's frame, nan where there is none."""
    pixels = points_to_pixels(clip.points.astype(np.float64), clip.letterbox.size)
    return np.where(clip.visible[..., None], pixels, np.nan)


def track(source: Image, frames: Sequence[Image], start: Points) -> Points:
    """Follow points from a source through the frames that come after it.

    Args:
        source: (H, W[, 3]).
        frames: T frames of the same size, in order.
        start: (P, 2) pixels, xy, of the source.

    Returns:
        (T, P, 2) pixels; nan for points that are not finite at the start.
    """
    known = np.isfinite(start).all(axis=1)
    at, before = start[known], to_levels(source)
    line = np.linspace(-_REACH, _REACH, _SIDE)
    grid = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    path = np.full((len(frames), *start.shape), np.nan)
    for t, frame in enumerate(frames if len(at) else ()):
        now = to_levels(frame)
        at = at + _step(before, now, at, grid)
        path[t, known] = at
        before = now
    return path


def _step(before: Picture, now: Picture, at: Points, grid: Points) -> Points:
    cluster = (at[:, None] + grid).astype(np.float32)
    here = cluster.reshape(-1, 1, 2)
    there, found = _flow(before, now, here)
    home, returned = _flow(now, before, there)
    miss = np.linalg.norm(home - here, axis=-1).reshape(cluster.shape[:2])
    ok = (miss < _MISS) & (found & returned).reshape(miss.shape)
    moves = (there - here).reshape(cluster.shape).astype(np.float64)
    count = ok.sum(axis=1)
    total = np.where(ok[..., None], moves, 0).sum(axis=1)
    return np.where(count[:, None] >= _LEAST, total / np.maximum(count, 1)[:, None], 0.0)


def _flow(
    here: Picture, there: Picture, points: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    found = points.copy()  # overwritten: only a flag would make it the first guess
    at, status, _ = cv2.calcOpticalFlowPyrLK(here, there, points, found, **_LUCAS_KANADE)
    return at, status.astype(np.bool_)[..., None]


def by_landmark(
    names: Sequence[str], places: Mapping[str, Points], true: Points
) -> dict[str, dict[str, float]]:
    """Mean distances from the truth (T, P, 2) over frames, in pixels, by landmark and method.

    Of the landmarks that are known in some frame; ``places`` are (T, P, 2), or (P, 2) of a method
    that holds still. What is not known is nan.
    """
    gaps = {name: np.linalg.norm(place - true, axis=-1) for name, place in places.items()}
    known = np.isfinite(list(gaps.values())).all(axis=0).any(axis=0)
    return {
        name: {method: finite_mean(gap[:, i]) for method, gap in gaps.items()}
        for i, name in enumerate(names)
        if known[i]
    }


def mean_error(errors: Iterable[Mapping[str, float]]) -> dict[str, float] | None:
    """The mean over landmarks, or over clips, by method; None where there is none."""
    rows = list(errors)
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]} if rows else None


def labelled_frames(clip: ClipFrames) -> list[int]:
    """The frames of a clip that have a label."""
    return [int(t) for t in np.flatnonzero(clip.visible.any(axis=1))]


def untrackable(clip: ClipFrames) -> str | None:
    """Why the points of a clip cannot be followed; None where they can."""
    frames = labelled_frames(clip)
    if len(frames) < 2:
        return "has fewer than two labelled frames"
    middle = frames.pop(len(frames) // 2)
    if not (clip.visible[frames] & clip.visible[middle]).any():
        return "has no label that is in its middle labelled frame and in another one"
    return None


def follow(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> tuple[Row, list[Frame]]:
    """Look for the points of the middle labelled frame in the others.

    Returns:
        errors: by method, in pixels (`hold`: every point stays; `flow`: dense flow, DIS, from the
        source to the frame); share: the same over hold's; points: errors by point; lost: share of
        the points that the deformation reads nowhere. And frames for the pictures, the source
        first.
    """
    labelled = labelled_frames(clip)
    middle = labelled[len(labelled) // 2]
    true = labelled_pixels(clip)
    start, source = true[middle], np.array(clip.frames[middle])
    common = [t for t in labelled if t != middle and np.isfinite(true[t] + start).any()]
    numbers = spread(common, max_frames)
    model, flow = np.full((2, len(numbers), *start.shape), np.nan)
    lost, samples, wanted = [], [], spread(numbers, SAMPLES)
    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    for k, t in enumerate(numbers):
        frame = Frame(t, np.array(clip.frames[t]), points=true[t]).drive(candidate.own)
        both = np.isfinite(start + true[t]).all(axis=1)
        model[k, both], found = carried(frame.flow, start[both])
        dense = dis(source, frame.driving).astype(np.float64)
        flow[k, both] = start[both] + sampled(dense, start[both])[0]
        lost.append(float((~found).mean()))
        frame.found = model[k]
        samples += [frame] if t in wanted else []
    places = {"model": model, "hold": start, "flow": flow}
    row = measured(clip, clip.clip.keypoint_names, places, true[numbers])
    row |= {"lost": finite_mean(lost), "share": shares(row["errors"])}
    return row, [Frame(middle, source, points=start), *samples]


def measured(
    clip: ClipFrames, names: Sequence[str], places: Mapping[str, Points], true: Points
) -> Row:
    """Errors of what methods found, (T, P, 2) or the same in all T frames (P, 2), in pixels."""
    gaps = {name: np.linalg.norm(at - true, axis=-1) for name, at in places.items()}
    return {
        "clip": clip.clip.name,
        "subject": clip.clip.subject,
        "group": clip.clip.group,
        "frames": len(labelled_frames(clip)),
        "driven": len(true),
        "errors": {n: finite_mean([finite_mean(row) for row in gap]) for n, gap in gaps.items()},
        "points": by_landmark(names, places, true),
    }


def shares(errors: dict[str, float]) -> dict[str, float]:
    """Errors over hold's."""
    return {name: ratio(error, errors["hold"]) for name, error in errors.items()}
