"""Choose the reference: the driving frame that is taken to show the source's pose.

With keypoints, `best` is the frame most like the source. Displacements are found between driving
frames, so with them it is the frame from which the others have moved least.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .animator import Animator
from .bundle.manifest import DisplacementControl
from .media.frames import Image, letterbox, shows_something
from .media.pixels import to_planes
from .options import SMALLEST_AREA, Points, has_hulls, hull_area
from .readers.source import FrameSource
from .session import Planes
from .support.errors import ConfigError, InputError
from .support.progress import progress

log = logging.getLogger("sonomime")

CANDIDATES = 16
"""How many frames of a clip are matched with each other, at most."""


def choose_reference(
    animator: Animator, driving: FrameSource, reference: str | int
) -> tuple[int | None, Image | None]:
    """Set the reference frame of relative motion: `first`, `best` or an index. For a first frame
    that need not be read, nothing is set: the first frame animated becomes the reference.

    Returns:
        Its index from 0, None for absolute motion, which has none; its pixels if they were read.

    Raises:
        ConfigError: another word; `best`, and the model has nothing to choose by.
        InputError: there is no such frame.
        BackendError: a stage failed.
    """
    if isinstance(reference, str) and reference not in ("first", "best"):
        raise ConfigError(f"unknown reference {reference!r}", "first, best or a frame's index")
    if animator.motion == "absolute":
        return None, None
    matches = isinstance(animator.session.chain.control, DisplacementControl)
    if reference == "first" and not matches:
        return 0, None
    index = 0 if reference == "first" else reference
    if not isinstance(index, int):
        index = _least_moved(animator, driving) if matches else _most_alike(animator, driving)
    image = nth_frame(driving, index)
    animator.set_reference(image)
    if matches and not shows_something(image):
        said = "the reference, frame %d of %s, is black or of one level: nothing can be matched"
        log.warning(f"{said} with it; choose another with --reference", index, driving.path)
    return index, image


def nth_frame(source: FrameSource, index: int) -> Image:
    """A frame of a clip; InputError if it has fewer frames."""
    last = -1
    for frame in source:
        if frame.index == index:
            return frame.image
        last = frame.index
    hint = f"its frames are 0 to {last}" + (", without damaged ones" if source.damage else "")
    raise InputError(f"{source.path} has no frame {index}", hint)


def _most_alike(animator: Animator, driving: FrameSource) -> int:
    """By the keypoints of every frame and of the source."""
    if not has_hulls(animator.session.chain):
        hint = "give --reference the number of a frame, or leave it out for the first"
        raise ConfigError("this model has no keypoints to choose the best reference by", hint)
    source = animator.read("source_kp_value")[0]
    frames = progress(driving, driving.count_hint, "choose the reference")
    distances = {f.index: reference_distance(source, animator.detect(f.image)) for f in frames}
    return _least(distances)


def _least_moved(animator: Animator, driving: FrameSource) -> int:
    """The frame with the least mean, over the others, of the median displacement from it."""
    session = animator.session
    frames = _sample(driving, session.chain.image.size)
    moved = {}
    for index, planes in progress(frames.items(), len(frames), "choose the reference"):
        session.set_reference(planes)
        others = (other for at, other in frames.items() if at != index)
        lengths = [np.linalg.norm(session.match(other), axis=-1) for other in others]
        moved[index] = np.mean([np.median(length) for length in lengths]) if lengths else 0.0
    return _least(moved)


def _least(distances: Mapping[int, float]) -> int:
    """Where the least one is; nan is not one."""
    return min(distances, key=lambda index: (math.isnan(distances[index]), distances[index]))


def _sample(driving: FrameSource, size: int) -> dict[int, Planes]:
    """At most CANDIDATES evenly spaced frames by their index, letterboxed, in one pass over a clip
    of unknown length. Frames that show nothing are left out, unless all do."""
    kept: dict[int, tuple[Planes, bool]] = {}
    step = 1
    for frame in progress(driving, driving.count_hint, "look through the clip"):
        if frame.index % step:
            continue
        planes = to_planes(letterbox(frame.image, size)[0])
        kept[frame.index] = planes, shows_something(frame.image)
        if len(kept) > CANDIDATES:
            step *= 2
            kept = {index: value for index, value in kept.items() if index % step == 0}
    every = not any(shows for _, shows in kept.values())
    return {index: planes for index, (planes, shows) in kept.items() if shows or every}


def reference_distance(source: Points, frame: Points) -> float:
    """How different the poses of source and driving frame are, whatever their place and size.

    Sum over keypoints of |(p_R - mean) / sqrt(area_R) - (p_S - mean) / sqrt(area_S)|^2.
    """

    def normalised(points: Points) -> NDArray[np.float64]:
        centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
        return np.asarray(centred / math.sqrt(max(hull_area(points), SMALLEST_AREA)))

    return float(np.square(normalised(frame) - normalised(source)).sum())
