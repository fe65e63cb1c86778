"""Tracking: labelled points of one frame, looked for in the others by the model's own motion.

Source and reference are the middle one of a clip's labelled frames. The model's deformation says
where a new frame reads in the source, so a point p of the source is found at z with
deformation(z) = p. The error is the distance from the label, in pixels of the model's frame: the
mean over points, then frames, then clips. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import numpy as np

from ..data.clip_frames import ClipFrames
from ..data.flow import sampled
from .candidate import Candidate
from .ground_truth.fields import carried
from .landmarks import by_landmark, labelled_pixels
from .loop import Frame, Row, shown, spread
from .metrics import dis, finite_mean, ratio


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
    lost, samples, wanted = [], [], shown(numbers)
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
    gaps = {name: np.linalg.norm(at - true[numbers], axis=-1) for name, at in places.items()}
    errors = {name: finite_mean([finite_mean(row) for row in rows]) for name, rows in gaps.items()}
    row = {
        "clip": clip.clip.name,
        "subject": clip.clip.subject,
        "group": clip.clip.group,
        "frames": len(labelled),
        "driven": len(numbers),
        "errors": errors,
        "points": by_landmark(clip.clip.keypoint_names, places, true[numbers]),
        "lost": finite_mean(lost),
        "share": shares(errors),
    }
    return row, [Frame(middle, source, points=start), *samples]


def shares(errors: dict[str, float]) -> dict[str, float]:
    """Errors over hold's."""
    return {name: ratio(error, errors["hold"]) for name, error in errors.items()}
