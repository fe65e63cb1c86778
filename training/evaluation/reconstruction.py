"""What a model has to do to be judged: drive a still with its own clip, and with another subject's.

Reconstruction: every frame of a clip drives the clip's own middle frame (n // 2) with ABSOLUTE
motion, or RELATIVE to that frame where the model has no absolute one; that frame is left out of
every ratio. Leakage: the clip of another subject drives the same
still with RELATIVE motion. Source: METHOD, "How it is judged".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtime.animator import Animator
from .candidate import Candidate
from .fidelity import Account, Fidelity, Targets
from .ground_truth.scores import ClipTruth, Exact, ExactAccount, ExactFrame
from .landmarks import Points
from .metrics import (
    FloatImage,
    Leakage,
    Mask,
    blur,
    clip_mask,
    leakage_ncc,
    to_float,
    to_levels,
    warp_by_deformation,
    warp_by_flow,
)

METHODS = ("model", "hold", "blur", "flow")
"""The model and its baselines: the source held; the source blurred by the sigma that fits the clip
best; the source warped by the dense flow. The last two see the target."""
ORACLE = "oracle"
"""One more where the exact field is known: the source warped by it."""
BLUR_SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LEAKAGE_FRAMES = 16
SAMPLES = 5

Frames = NDArray[np.uint8]


class Sample(NamedTuple):
    """One driven frame, for the pictures."""

    number: int
    driving: Frames
    prediction: Frames
    deformation: FloatImage
    truth: Frames | None = None
    """What the prediction should be; None where another subject drives a clip."""
    true: Points | None = None
    tracked: Points | None = None
    """A pair's landmarks (P, 2) in pixels, nan where not known: in truth and in the prediction."""


@dataclass(frozen=True)
class Drive:
    """Frames (T, S, S[, 3]) of a clip, who is seen in it, and its exact field if there is one."""

    name: str
    subject: str
    group: str
    frames: Frames
    truth: Callable[[], ClipTruth] | None = None


class OwnSizeMeasures(NamedTuple):
    """Of one method at a clip's own size; see `own_size`."""

    l1_ratio: float
    sharpness: float


@dataclass(frozen=True)
class OwnSize:
    """A clip at its own `width` x `height`, inside of its crop; `driven` frames were measured."""

    width: int
    height: int
    driven: int
    methods: dict[str, OwnSizeMeasures]


@dataclass(frozen=True)
class ClipResult:
    """All that was measured on one clip.

    Attributes:
        frames: T, repeated frames not counted; `driven` of them were measured.
        mean_flow: mean |F(x->S)| over consistent pixels, in pixels of the model frame.
        methods: the measures by method (see METHODS; ORACLE where the field is known).
        blur_sigma: of the best blur, in pixels.
        driver: the clip that drove the leakage test, None when no other subject was there.
        leakage: mean over its frames.
        exact: what only an exact field allows; None without one.
        own_size: measures of larger frames than the model's; None for a clip that has none.
    """

    clip: str
    subject: str
    group: str
    frames: int
    driven: int
    mean_flow: float
    methods: dict[str, Fidelity]
    blur_sigma: float
    driver: str | None = None
    leakage: Leakage | None = None
    exact: Exact | None = None
    own_size: OwnSize | None = None

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom it shows."""
        return (self.subject,)


@dataclass
class Pictures:
    """What the strips show: the source, with a pair's landmarks, and a few frames driven by its own
    and by another clip."""

    source: Frames
    own: list[Sample] = field(default_factory=list)
    other: list[Sample] = field(default_factory=list)
    start: Points | None = None


def driven_frames(count: int, max_frames: int | None = None) -> list[int]:
    """The frames to drive with: all but the middle one, or `max_frames` of them spread evenly."""
    indices = [i for i in range(count) if i != count // 2]
    return spread(indices, max_frames)


def spread(indices: Sequence[int], at_most: int | None) -> list[int]:
    """At most so many of the indices, evenly spread, first and last among them."""
    if at_most is None or len(indices) <= at_most:
        return list(indices)
    places = np.rint(np.linspace(0, len(indices) - 1, at_most)).astype(int)
    return [indices[i] for i in places]


def choose_driver(drives: Sequence[tuple[str, str, str]], index: int, seed: int) -> int | None:
    """Which clip drives clip `index` in the leakage test.

    A clip of another subject, of the same group where there is one; drawn from `seed` and the
    clip's name, so that the draw does not hang on the order of the clips.

    Args:
        drives: (name, subject, group) of every clip.

    Returns:
        an index into `drives`, or None when there is no other subject.
    """
    name, subject, group = drives[index]
    others = [i for i, other in enumerate(drives) if other[1] != subject]
    near = [i for i in others if drives[i][2] == group]
    pool = sorted(near or others, key=lambda i: drives[i][0])
    if not pool:
        return None
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return pool[int(draw.integers(len(pool)))]


def best_blur(frames: Frames, indices: Sequence[int], source: Frames, mask: Mask) -> float:
    """The sigma in BLUR_SIGMAS whose blur of the source has the least L1 to the driven frames."""
    held = to_float(source)
    blurred = np.stack([blur(held, sigma)[mask] for sigma in BLUR_SIGMAS])
    total = np.zeros(len(BLUR_SIGMAS))
    for i in indices:
        total += np.abs(blurred - to_float(frames[i])[mask]).sum(1, dtype=np.float64)
    return BLUR_SIGMAS[int(np.argmin(total))]


def reconstruct(
    candidate: Candidate, drive: Drive, max_frames: int | None = None
) -> tuple[ClipResult, Pictures]:
    """Drive a clip's middle frame with the clip itself, beside the baselines.

    Args:
        drive: a clip of at least two frames.
        max_frames: measure only so many, evenly spread; the temporal measures are then those of the
            thinned clip.
    """
    frames = drive.frames
    source = np.array(frames[len(frames) // 2])
    indices = driven_frames(len(frames), max_frames)
    shown = set(spread(indices, SAMPLES))
    pictures = Pictures(source)
    mask = clip_mask(frames)
    sigma = best_blur(frames, indices, source, mask)
    grey = to_levels(source)
    still = {"hold": grey, "blur": to_levels(blur(to_float(source), sigma))}
    targets = Targets(grey, mask)
    still_flows = {name: targets.flows_of(image) for name, image in still.items()}
    accounts = {name: Account(targets) for name in METHODS}
    truth, exact = None, None
    middle, before = len(frames) // 2, -1
    if drive.truth is not None:
        truth = drive.truth()
        accounts[ORACLE] = Account(targets)
        start = truth.points(middle)
        exact = ExactAccount(grey, truth.sector, candidate.geometry, truth.names, start)
    candidate.own.set_source(source)
    candidate.own.set_reference(source)
    # OpenCV, numpy and the backends let go of Python's lock: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for i in indices:
            image = np.array(frames[i])
            if before < middle < i:
                targets.gap()
            before = i
            coming = pool.submit(targets.frame, image)
            prediction = candidate.own.animate(image)
            deformation = read_deformation(candidate.own)
            target = coming.result()
            images = {"model": to_levels(prediction)}
            images["flow"] = to_levels(warp_by_flow(grey, target.motions[0].flow))
            if truth is not None and exact is not None:
                flow, known = truth.flow(i, middle)
                images[ORACLE] = to_levels(warp_by_flow(grey, flow))
                fact = ExactFrame(to_levels(image), flow, known, truth.points(i))
                exact.add(i - middle, fact, {**images, **still}, deformation)
            jobs = [
                pool.submit(accounts[name].add, y, target, still_flows.get(name))
                for name, y in {**images, **still}.items()
            ]
            for job in jobs:
                job.result()
            if i in shown:
                pictures.own.append(Sample(i, image, prediction, deformation, image))
    result = ClipResult(
        clip=drive.name,
        subject=drive.subject,
        group=drive.group,
        frames=len(frames),
        driven=len(indices),
        mean_flow=accounts["model"].mean_flow,
        methods={name: account.result() for name, account in accounts.items()},
        blur_sigma=sigma,
        exact=None if exact is None else exact.result()[0],
    )
    return result, pictures


def leakage(
    candidate: Candidate, drive: Drive, other: Drive, max_frames: int | None = None
) -> tuple[Leakage, list[Sample]]:
    """Drive a clip's middle frame with another subject's clip, relative motion.

    Args:
        max_frames: at most so many frames of the other clip (never more than LEAKAGE_FRAMES).

    Returns:
        the mean over frames, and a few of them for the pictures.
    """
    source = np.array(drive.frames[len(drive.frames) // 2])
    source_mask, driving_mask = clip_mask(drive.frames), clip_mask(other.frames)
    indices = spread(range(len(other.frames)), min(max_frames or LEAKAGE_FRAMES, LEAKAGE_FRAMES))
    shown = set(spread(indices, SAMPLES))
    samples: list[Sample] = []
    rows: list[Leakage] = []
    animator = candidate.other
    animator.set_source(source)
    animator.set_reference(np.array(other.frames[0]))
    for i in indices:
        driving = np.array(other.frames[i])
        prediction = animator.animate(driving)
        deformation = read_deformation(animator)
        warped = warp_by_deformation(to_float(source), deformation, candidate.geometry)
        rows.append(leakage_ncc(prediction, warped, driving, source_mask, driving_mask))
        if i in shown:
            samples.append(Sample(i, driving, prediction, deformation))
    return Leakage(*np.mean(rows, axis=0).tolist()), samples


def read_deformation(animator: Animator) -> FloatImage:
    """The last frame's deformation, (h, w, 2)."""
    return np.asarray(animator.read("deformation")[0], np.float32)
