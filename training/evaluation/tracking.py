"""Tracking: labelled points of one frame, looked for in the others by the model's own motion.

Source and reference are the middle one of a clip's labelled frames. The model's deformation says
where a new frame reads in the source, so a point p of the source is found at z with
deformation(z) = p. The error is the distance from the label, in pixels of the model's frame: the
mean over points, then frames, then clips. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import numpy as np

from ..data.dataset import ClipFrames
from ..data.flow import sampled
from .candidate import Candidate
from .ground_truth.fields import carried
from .landmarks import Points, labelled_pixels
from .loop import SAMPLES, Driven, Picture, Row, Step, drive, spread
from .metrics import deformation_flow, dis, finite_mean, ratio

METHODS = ("model", "hold", "flow")
"""The model; every point stays; dense flow (DIS) from the source to the frame."""


def labelled_frames(clip: ClipFrames) -> list[int]:
    """The frames of a clip that have a label."""
    return [int(t) for t in np.flatnonzero(clip.visible.any(axis=1))]


def untrackable(clip: ClipFrames) -> str | None:
    """Why the points of a clip cannot be followed; None where they can."""
    frames = labelled_frames(clip)
    if len(frames) < 2:
        return "has fewer than two labelled frames"
    middle = frames[len(frames) // 2]
    others = clip.visible[[t for t in frames if t != middle]]
    if not (others & clip.visible[middle]).any():
        return "has no label that is in its middle labelled frame and in another one"
    return None


def follow(
    candidate: Candidate, clip: ClipFrames, max_frames: int | None = None
) -> tuple[Row, list[Driven]]:
    """Look for the points of the middle labelled frame in the others.

    Args:
        clip: one that is not `untrackable`.
        max_frames: measure only so many, evenly spread.

    Returns:
        errors: by method, in pixels; share: the same over hold's; points: errors by point; lost:
        share of the points that the deformation reads nowhere. And frames for the pictures, the
        source first.
    """
    labelled = labelled_frames(clip)
    middle = labelled[len(labelled) // 2]
    true = labelled_pixels(clip)
    start, source = true[middle], np.array(clip.frames[middle])
    common = [t for t in labelled if t != middle and np.isfinite(true[t] + start).any()]
    numbers = spread(common, max_frames)
    points = _Points(source, start, candidate.geometry)
    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    steps = (Step(t, np.array(clip.frames[t]), after=t - middle, points=true[t]) for t in numbers)
    samples = drive(candidate.own, steps, [points.add], shown=spread(numbers, SAMPLES))
    gaps = {name: np.stack(rows) for name, rows in points.gaps.items()}  # (frames, P)
    errors = {name: finite_mean([finite_mean(row) for row in rows]) for name, rows in gaps.items()}
    known = np.isfinite(gaps["hold"]).any(axis=0)
    row = {
        "clip": clip.clip.name,
        "subject": clip.clip.subject,
        "group": clip.clip.group,
        "frames": len(labelled),
        "driven": len(numbers),
        "errors": errors,
        "points": {
            name: {method: finite_mean(rows[:, i]) for method, rows in gaps.items()}
            for i, name in enumerate(clip.keypoint_names)
            if known[i]
        },
        "lost": finite_mean(points.lost),
        "share": shares(errors),
    }
    found = dict(zip(numbers, points.found, strict=True))
    shown = [driven._replace(found=found[driven.step.number]) for driven in samples]
    still = Step(middle, source, points=start)
    return row, [shown[0]._replace(step=still, found=np.full_like(start, np.nan)), *shown]


def shares(errors: dict[str, float]) -> dict[str, float]:
    """Errors over hold's."""
    return {name: ratio(error, errors["hold"]) for name, error in errors.items()}


class _Points:
    """Finds the source's points in each frame, by every method."""

    def __init__(self, source: Picture, start: Points, geometry: str) -> None:
        self._source, self._start, self._geometry = source, start, geometry
        self.gaps: dict[str, list[Points]] = {name: [] for name in METHODS}
        self.found: list[Points] = []
        self.lost: list[float] = []

    def add(self, driven: Driven) -> None:
        start, true = self._start, driven.step.points
        both = np.isfinite(start + true).all(axis=1)
        flow = deformation_flow(driven.deformation, *self._source.shape[:2], self._geometry)
        dense = dis(self._source, driven.step.driving).astype(np.float64)
        places = {name: np.full_like(start, np.nan) for name in METHODS}
        places["model"][both], found = carried(flow, start[both])
        places["hold"][both] = start[both]
        places["flow"][both] = start[both] + sampled(dense, start[both])[0]
        for name, at in places.items():
            self.gaps[name].append(np.linalg.norm(at - true, axis=-1))
        self.lost.append(float((~found).mean()))
        self.found.append(places["model"])
