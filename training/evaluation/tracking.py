"""Tracking: labelled points of one frame, looked for in the others by the model's own motion.

Source and reference are the middle one of a clip's labelled frames (n // 2 of them). The model's
deformation says where a new frame reads in the source, so a point p of the source is found at z
with deformation(z) = p. The error is the distance from the label, in pixels of the model's frame:
the mean over points, then frames, then clips. Nothing here is a picture: sharp speckle in the wrong
place does not help.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..data.dataset import ClipFrames
from ..data.flow import sampled
from .candidate import Candidate
from .ground_truth.fields import carried
from .landmarks import Points, labelled_pixels
from .metrics import FloatImage, Flow, deformation_flow, finite_mean
from .reconstruction import SAMPLES, Frames, read_deformation, spread

METHODS = ("model", "hold", "flow")
"""The model; every point stays; dense flow (DIS) from the source to the frame, which sees both."""


@dataclass(frozen=True)
class TrackingResult:
    """All that was measured on one clip.

    Attributes:
        frames: with labels; `driven` of them were measured.
        errors: by method (see METHODS), in pixels.
        points: the same by the name of a point, of those in the source and in another frame.
        lost: share of the points that the deformation reads nowhere; the pixel that reads nearest
            stands for them.
    """

    clip: str
    subject: str
    group: str
    frames: int
    driven: int
    errors: dict[str, float]
    points: dict[str, dict[str, float]]
    lost: float

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom it shows."""
        return (self.subject,)


class TrackedFrame(NamedTuple):
    """One frame for the pictures: its labels and what the model found, (P, 2) pixels or nan."""

    number: int
    image: Frames
    true: Points
    found: Points


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
) -> tuple[TrackingResult, list[TrackedFrame]]:
    """Look for the points of the middle labelled frame in the others.

    Args:
        clip: one that is not `untrackable`.
        max_frames: measure only so many, evenly spread.

    Returns:
        the measures, and frames for the pictures, the source first.
    """
    labelled = labelled_frames(clip)
    middle = labelled[len(labelled) // 2]
    true = labelled_pixels(clip)
    start, source = true[middle], np.array(clip.frames[middle])
    common = [t for t in labelled if t != middle and np.isfinite(true[t] + start).any()]
    indices = spread(common, max_frames)
    shown = set(spread(indices, SAMPLES))
    pictures = [TrackedFrame(middle, source, start, np.full_like(start, np.nan))]
    dense = Flow()
    gaps: dict[str, list[Points]] = {name: [] for name in METHODS}
    lost: list[float] = []
    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    for t in indices:
        image = np.array(clip.frames[t])
        candidate.own.animate(image)
        deformation = read_deformation(candidate.own)
        flow = deformation_flow(deformation, *source.shape[:2], candidate.geometry)
        both = np.isfinite(start + true[t]).all(axis=1)
        places = {name: np.full_like(start, np.nan) for name in METHODS}
        places["model"][both], found = carried(flow, start[both])
        places["hold"][both] = start[both]
        places["flow"][both] = start[both] + _at(dense(source, image), start[both])
        for name, at in places.items():
            gaps[name].append(np.linalg.norm(at - true[t], axis=-1))
        lost.append(float((~found).mean()))
        if t in shown:
            pictures.append(TrackedFrame(t, image, true[t], places["model"]))
    arrays = {name: np.stack(rows) for name, rows in gaps.items()}  # (frames, P)
    result = TrackingResult(
        clip=clip.clip.name,
        subject=clip.clip.subject,
        group=clip.clip.group,
        frames=len(labelled),
        driven=len(indices),
        errors={name: _mean_of_means(rows) for name, rows in arrays.items()},
        points=_by_name(clip.keypoint_names, arrays),
        lost=finite_mean(lost),
    )
    return result, pictures


def _at(flow: FloatImage, points: Points) -> Points:
    return sampled(flow.astype(np.float64), points)[0]


def _mean_of_means(rows: Points) -> float:
    return finite_mean([finite_mean(row) for row in rows])


def _by_name(names: Sequence[str], arrays: dict[str, Points]) -> dict[str, dict[str, float]]:
    known = np.isfinite(arrays["hold"]).any(axis=0)
    return {
        name: {method: finite_mean(rows[:, i]) for method, rows in arrays.items()}
        for i, name in enumerate(names)
        if known[i]
    }
