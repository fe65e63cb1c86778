"""Landmarks detected: where the model's detector puts the labelled landmarks of single frames.

It measures the weak supervision itself: the supervised keypoints of a keypoint model, the landmark
network of lite. No motion is looked at. Beside it stands a constant answer: each landmark's mean
place over all evaluated clips, which sees the labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...runtime.animator import Animator
from ...runtime.bundle.manifest import KeypointControl
from ...runtime.support.errors import ConfigError
from ..coordinates import points_to_pixels
from ..data.clip_frames import ClipFrames
from .candidate import Candidate
from .loop import SAMPLES, Frame, Picture, Points, Row, spread
from .metrics import finite_mean, ratio
from .tracking import labelled_frames, labelled_pixels, measured


def detected_names(candidate: Candidate) -> tuple[str, ...]:
    """The landmarks that a model detects, in its order.

    Raises:
        ConfigError: it detects none that has a name.
    """
    control = candidate.own.session.chain.control
    if isinstance(control, KeypointControl):
        names = tuple(point.name for point in control.supervised)
    else:
        names = control.landmarks
    if not names:
        hint = "train with labels: a preset with supervised keypoints, or lite"
        raise ConfigError("this model detects no named landmark", hint)
    return names


def find(animator: Animator, picture: Picture) -> Points:
    """The landmarks of a picture of the model's size: (P, 2) pixels, as `detected_names` lists
    them."""
    chain = animator.session.chain
    if not isinstance(chain.control, KeypointControl):
        return np.array([(found.x, found.y) for found in animator.find_landmarks(picture)])
    found = animator.detect(picture)[[point.index for point in chain.control.supervised]]
    return points_to_pixels(found.astype(np.float64), len(picture), chain.geometry)


def undetectable(clip: ClipFrames) -> str | None:
    """Why nothing can be measured on a clip; None where it can."""
    return None if clip.visible.any() else "has no labelled frame"


def mean_places(clips: Sequence[ClipFrames]) -> dict[str, Points]:
    """Each landmark's mean place over all labelled frames: (2,) pixels, nan if never labelled."""
    every = np.concatenate([labelled_pixels(clip) for clip in clips])
    return {
        name: np.array([finite_mean(every[:, i, axis]) for axis in (0, 1)])
        for i, name in enumerate(clips[0].clip.keypoint_names)
    }


def detect(
    candidate: Candidate,
    clip: ClipFrames,
    constant: Mapping[str, Points],
    max_frames: int | None = None,
) -> tuple[Row, list[Frame]]:
    """Detect the landmarks in a clip's labelled frames.

    Args:
        constant: `mean_places`.

    Returns:
        errors: by method, in pixels: the mean over landmarks, then over frames (`constant`: the
        constant answer); points: errors by landmark; share: the model's error over the constant
        one's. And frames for the pictures.
    """
    names, known = detected_names(candidate), clip.clip.keypoint_names
    shared = [name for name in names if name in known]
    if not shared:
        labels = ", ".join(known) or "none"
        raise ConfigError(
            f"the model detects {', '.join(names)}; the data labels {labels}",
            "evaluate on data with the same names",
        )
    numbers = spread(labelled_frames(clip), max_frames)
    true = labelled_pixels(clip)[numbers][:, [known.index(name) for name in shared]]
    found = np.full_like(true, np.nan)
    samples, wanted = [], spread(numbers, SAMPLES)
    for k, t in enumerate(numbers):
        picture = np.array(clip.frames[t])
        found[k] = find(candidate.own, picture)[[names.index(name) for name in shared]]
        if t in wanted:
            samples.append(Frame(t, picture, points=true[k], found=found[k]))
    places = {
        "model": found,
        "constant": np.broadcast_to([constant[n] for n in shared], true.shape),
    }
    row = measured(clip, shared, places, true)
    row["share"] = {"model": ratio(row["errors"]["model"], row["errors"]["constant"])}
    return row, samples
