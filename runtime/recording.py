"""Make a motion template of a driving clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .alignment import pixels_to_points
from .animator import Animator
from .bundle.manifest import DisplacementControl
from .landmarks import Picture, check_landmarks_fit, places_in, sure_of
from .media.frames import Letterbox, letterbox
from .media.pixels import to_planes
from .readers.open_source import open_source
from .readers.reading import AS_IS, Reading
from .reference import choose_reference, nth_frame
from .support.errors import ConfigError, InputError
from .support.progress import progress
from .template import MOST_BYTES, MOST_FRAMES, Template, Tensors, control_of, find_loop


def make_template(
    animator: Animator, driving: Path, how: Reading = AS_IS, reference: str | int = "first",
    landmarks: str | Path = "auto", about: Mapping[str, str] | None = None,
) -> tuple[Template, bool]:  # fmt: skip
    """What each frame of a clip passes on, without alignment, scale and smoothing; and whether the
    clip is damaged.

    Args:
        reference: as for `choose_reference`.
        landmarks: places in the reference frame: `auto` (those that the model is sure of), `none`,
            or a file.
        about: see `Template`.

    Raises:
        ConfigError, InputError: a clip that cannot be used, or has one frame; as `choose_reference`
            and `places_in`.
        BackendError: a stage failed.
    """
    check_landmarks_fit(landmarks, reference)
    session = animator.session
    displaced = isinstance(session.chain.control, DisplacementControl)
    if reference == "best" and not displaced:
        hint = "give the number of a frame, --reference N"
        raise ConfigError("--reference best compares with a still, and there is none", hint)
    if isinstance(landmarks, Path) and not session.can_align:
        raise ConfigError("this model cannot align source and reference", "leave --landmarks out")
    clip = open_source(driving, how, session.chain.image.channels)
    clip.warn_of_clutter()
    size, names = session.chain.image.size, session.passed()
    animator.reset()
    index, image = choose_reference(animator, clip, reference)
    if image is None:
        image = nth_frame(clip, index or 0)
        animator.set_reference(image)
    box = Letterbox.fit(image.shape[1], image.shape[0], size)
    picture, places = Picture(image, clip.crop), dict[str, tuple[float, float]]()
    if isinstance(landmarks, Path):
        places = places_in(landmarks, "reference", picture)
    elif landmarks == "auto":
        places = sure_of(animator, picture)
    session.observe(to_planes(letterbox(image, size)[0]))
    seen: Tensors = {} if displaced else {name: session.read(name) for name in names}
    times, frames = [], dict[str, list[np.ndarray]]()
    for frame in progress(clip, clip.count_hint, "template"):
        planes = to_planes(letterbox(frame.image, size)[0])
        if displaced:
            session.match(planes)
        else:
            session.observe(planes)
        times.append(frame.timestamp)
        for name in names:
            frames.setdefault(name, []).append(session.read(name))
        held = len(times) * sum(values[0].nbytes for values in frames.values())
        if len(times) > MOST_FRAMES or held > MOST_BYTES:
            what = f"{driving} is too long for a template: it ends at {times[-1]:.0f} s"
            raise InputError(what, "cut out the part that moves as you want it")
    if len(times) < 2:
        raise InputError(f"{driving} has one frame, which has no motion", "give a clip")
    stacked = {name: np.stack(values) for name, values in frames.items()}
    seconds = np.array(times) - times[0]
    points = {n: pixels_to_points(np.array(place), box).tolist() for n, place in places.items()}
    template = Template(
        seconds, stacked, seen, control_of(session.chain), find_loop(seconds, stacked),
        {name: (x, y) for name, (x, y) in points.items()}, about or {},
    )  # fmt: skip
    return template, clip.damage is not None
