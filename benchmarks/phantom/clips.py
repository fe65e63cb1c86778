"""Of the phantom's anatomies: neighbouring frames, exact fields, landmarks; and statistics of
speckle that can be taken of any clip, simulated or real."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ...training.evaluation.metrics import blur, clip_mask, high_pass, ncc, to_float, warp_by_flow
from ...training.phantom.anatomy import map_error
from ...training.phantom.probe import pixel_grid
from ...training.phantom.render import Renderer
from ...training.phantom.subject import Identity, Subject, draw_subject, film, landmark_pixels
from ...training.phantom.tissue_map import integrate
from .physics import Check

Frames = NDArray[np.uint8]
FRAMES = 60
"""Of a manoeuvre at the scanner's frame rate: so many apart are neighbours."""
PLACES = (8, 22, 36, 50)
_BINS = (0.1, 0.2, 0.3, 0.4, 0.5)
_LAGS = 24
_INSIDE = 6  # pixels from the sector's border


@dataclass(frozen=True)
class Texture:
    """Speckle statistics of some frames, grey in [0, 1], pixels of the 256x256 frame.

    Attributes:
        deviation: of the high-pass, where the mean grey (G_4) is .1-.2, .2-.3, .3-.4, .4-.5.
        along, across: full width at half maximum of the high-pass' autocorrelation along the
            middle beams (down the picture) and across them.
        neighbours: correlation of the high-pass of neighbouring frames.
        greys: 10th, 50th, 90th and 99th percentile of the grey.
        black: share of the sector that is below 0.02.
    """

    deviation: tuple[float, ...]
    along: float
    across: float
    neighbours: float
    greys: tuple[float, ...]
    black: float


def texture(shots: Sequence[Frames]) -> Texture:
    """Statistics of runs of neighbouring frames, each (T, H, W), of one clip."""
    mask = lit_part(np.concatenate(shots))
    kernel = np.ones((2 * _INSIDE + 1,) * 2, np.uint8)
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    inside = cv2.erode(padded, kernel)[1:-1, 1:-1] > 0
    columns = np.flatnonzero(inside.any(axis=0))
    third = (columns[-1] - columns[0]) // 3 if len(columns) else 0
    middle = inside.copy()  # where a curved array's beams run down the picture
    middle[:, : columns[0] + third] = middle[:, columns[-1] - third :] = False
    squares = [[0.0, 0] for _ in _BINS[1:]]
    shapes, neighbours, seen = [], [], []
    for run in shots:
        greys = [to_float(frame) for frame in run]
        high = [high_pass(grey) for grey in greys]
        neighbours += [ncc(a, b, mask) for a, b in pairwise(high)]
        level = blur(greys[0], 4.0)
        for total, low, top in zip(squares, _BINS[:-1], _BINS[1:], strict=True):
            at = inside & (level >= low) & (level < top)
            total[0] += float(np.square(high[0][at], dtype=np.float64).sum())
            total[1] += int(at.sum())
        shapes.append([_width(high[0], middle, axis) for axis in (0, 1)])
        seen.append(greys[0][mask])
    along, across = np.mean(shapes, axis=0)
    pixels = np.concatenate(seen)
    return Texture(
        tuple(math.sqrt(total / count) if count > 500 else math.nan for total, count in squares),
        float(along),
        float(across),
        float(np.mean(neighbours)) if neighbours else math.nan,
        tuple(float(v) for v in np.percentile(pixels, (10, 50, 90, 99))),
        float((pixels < 0.02).mean()),
    )


def lit_part(frames: Frames) -> NDArray[np.bool_]:
    """The sector (H, W) of a clip that does not say where it is: the convex hull of what is not
    black, small marks left out."""
    lit = clip_mask(frames).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    places = cv2.findNonZero(lit)
    hull = np.zeros_like(lit)
    if places is not None:
        cv2.fillConvexPoly(hull, cv2.convexHull(places), 1)
    return hull > 0


def _width(high: NDArray[np.float32], mask: NDArray[np.bool_], axis: int) -> float:
    """Full width at half maximum of the autocorrelation along an axis, pixels."""
    curve = [1.0]
    for lag in range(1, _LAGS):
        size = high.shape[axis]
        a, b = (np.arange(size - lag), np.arange(lag, size))
        both = np.take(mask, a, axis) & np.take(mask, b, axis)
        curve.append(ncc(np.take(high, a, axis), np.take(high, b, axis), both))
        if curve[-1] < 0.5:
            part = (curve[-2] - 0.5) / (curve[-2] - curve[-1])
            return 2 * (lag - 1 + part)
    return math.nan


def stretches(subject: Subject, places: Sequence[int] = PLACES) -> tuple[list[Frames], float]:
    """Two neighbouring frames at some places of a clip of 60, with their persistence.

    Returns:
        uint8 (2, H, W) each, and the CPU seconds for a rendered frame.
    """
    body = subject.body
    states, slips = body.states(FRAMES), body.out_of_plane(FRAMES)
    renderer, weights = Renderer(body, 1), body.display.persistence
    began, runs = time.process_time(), []
    for place in places:
        greys = []
        for t in range(place - 3, place + 1):
            view = renderer.view(states[t], float(slips[t]), np.random.default_rng([1, t]))
            greys.append(body.display.grey(view.envelope))
        shown = [
            weights[0] * greys[q] + weights[1] * greys[q - 1] + weights[2] * greys[q - 2]
            for q in (2, 3)
        ]
        runs.append(np.stack([renderer.convert(grey) for grey in shown]))
    return runs, (time.process_time() - began) / (4 * len(places))


def subjects(anatomy: str, seed: int, count: int) -> list[Subject]:
    """The first subjects of a seed, as they come."""
    return [draw_subject(Identity(anatomy, seed, number)) for number in range(count)]


def neighbours(runs: Sequence[Frames], subject: Subject) -> float:
    """Mean correlation of the high-pass of neighbouring frames, over the sector."""
    sector = subject.body.probe.sector()
    high = [[high_pass(to_float(frame)) for frame in run] for run in runs]
    return float(np.mean([ncc(a, b, sector) for a, b in high]))


def exact_field(subject: Subject, frames: int = 6) -> list[Check]:
    """How much of a clip the exact displacement of its first frame explains, and what it says of
    the landmarks."""
    body = subject.body
    states = body.states(FRAMES)[:: FRAMES // frames][:frames]
    points = landmark_pixels(body, states)
    sector, shots = body.probe.sector(), list(film(body, states, 1, [1]))
    first = to_float(shots[0].image)
    hold = oracle = off = 0.0
    for shot, at in zip(shots[1:], points[1:], strict=True):
        image = to_float(shot.image)
        hold += float(np.abs(first - image)[sector].mean())
        oracle += float(np.abs(warp_by_flow(first, shot.displacement) - image)[sector].mean())
        x, y = np.ascontiguousarray(at.T)[:, None]
        led = at + cv2.remap(shot.displacement, x, y, cv2.INTER_LINEAR)[0]
        off = max(off, float(np.linalg.norm(led - points[0], axis=-1).max()))
    return [
        Check(
            "first frame warped by the exact field: L1 / L1 of holding it", oracle / hold, 0, 0.7
        ),
        Check("field at a landmark: distance from where it was, worst, px", off, 0.0, 0.3),
    ]


def displacement_error(
    subject: Subject, state: NDArray[np.float64], image: Frames, displacement: NDArray[np.float32]
) -> NDArray[np.float64]:
    """By how many pixels a frame's displacement is off where the frame shows something: from the
    place at rest that it names, tissue is followed forward by the exact map."""
    body = subject.body
    lit = (blur(to_float(image), 2.0) > 0.05) & body.probe.inside(body.probe.to_mm(pixel_grid()), 2)
    pixels = pixel_grid()[lit]
    velocity, pose = body.motion(state)
    there = pose.place(integrate(body.probe.to_mm(pixels + displacement[lit]), velocity))
    return np.asarray(np.linalg.norm(body.probe.to_pixels(there) - pixels, axis=-1))


def exact_displacement(some: Sequence[Subject]) -> list[Check]:
    """The displacement at the height of each manoeuvre, which is when it is hardest to have."""
    found = []
    for subject in some:
        states = subject.body.states(FRAMES)
        points = landmark_pixels(subject.body, states)
        peak = int(np.linalg.norm(points - points[0], axis=-1).max(axis=1).argmax())
        shot = next(film(subject.body, states[peak : peak + 1], 1, [1]))
        found.append(displacement_error(subject, states[peak], shot.image, shot.displacement))
    beyond = [float((error > 1).mean()) for error in found]
    who = f"{some[0].identity.anatomy}, displacement at the height of the manoeuvre"
    return [
        Check(f"{who}: mean error, px, mean of {len(some)}",
              float(np.mean([error.mean() for error in found])), 0, 0.1),
        Check("the same: share of lit pixels off by more than 1 px, median subject",
              float(np.median(beyond)), 0, 0.01),
        Check("the same, worst subject", max(beyond), 0, 0.01),
    ]  # fmt: skip


def exact_maps(bodies: Sequence[Subject]) -> list[Check]:
    """Landmarks are where they are defined to be, and the map and its inverse cancel."""
    worst = max(
        map_error(subject.body, state)
        for subject in bodies
        for state in subject.body.states(9)
    )  # fmt: skip
    name = f"map of a state and back, landmarks too: worst error, {len(bodies)} subjects, px"
    return [Check(name, worst, 0.0, 0.25)]


def seeds(subject: Subject) -> list[Check]:
    """One seed, one picture; another seed, the same anatomy with other speckle."""
    body = subject.body
    states = body.states(FRAMES)[:1]
    a, again, b = (next(film(body, states, seed)).image for seed in (1, 1, 2))
    sector = cv2.erode(body.probe.sector().astype(np.uint8), np.ones((17, 17))) > 0

    def common(of: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> float:
        return ncc(of(to_float(a)), of(to_float(b)), sector)

    return [
        Check("one seed twice: pixels that differ", float((a != again).sum()), 0, 0),
        Check("two seeds, one anatomy: correlation of the low-pass (G_4)",
              common(lambda image: blur(image, 4.0)), 0.9, 1.0),
        # Thin bright layers are anatomy too, and pass the high-pass.
        Check("the same, of the high-pass", common(high_pass), -0.35, 0.35),
    ]  # fmt: skip
