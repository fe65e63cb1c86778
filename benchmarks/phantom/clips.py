"""Of the phantom's anatomies: neighbouring frames, exact fields, landmarks; and statistics of
speckle that can be taken of any clip, simulated or real."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from ...training.evaluation.metrics import (
    blur,
    clip_mask,
    finite_mean,
    high_pass,
    ncc,
    read_at,
    to_float,
    warp_by_flow,
)
from ...training.phantom.anatomy import map_error
from ...training.phantom.probe import pixel_grid
from ...training.phantom.render import Renderer
from ...training.phantom.subject import (
    Identity,
    Shot,
    Subject,
    draw_subject,
    film,
    landmark_pixels,
)
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


@dataclass
class Report:
    """What is measured.

    Attributes:
        textures: of each clip, by column of the table.
        histograms: share of the pixels in each of 64 greys, likewise.
        speed: by anatomy: seconds of a core and MB.
        notes: what was left out, and why.
    """

    checks: list[Check] = field(default_factory=list)
    textures: dict[str, list[Texture]] = field(default_factory=dict)
    histograms: dict[str, list[list[float]]] = field(default_factory=dict)
    speed: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, column: str, runs: Sequence[Frames]) -> None:
        """A clip's texture and greys, of runs of neighbouring frames."""
        self.textures.setdefault(column, []).append(texture(runs))
        greys = np.stack([run[0] for run in runs])[:, lit_part(np.concatenate(runs))]
        counts = np.histogram(greys, bins=64, range=(0, 256))[0]
        shares = (counts / counts.sum()).round(5).tolist()
        self.histograms.setdefault(column, []).append(shares)


def texture(shots: Sequence[Frames]) -> Texture:
    """Statistics of runs of neighbouring frames, each (T, H, W), of one clip."""
    mask = lit_part(np.concatenate(shots))
    kernel = np.ones((2 * _INSIDE + 1,) * 2, np.uint8)
    black = cv2.BORDER_CONSTANT  # beyond the picture, whose edge is the sector's then
    inside = cv2.erode(mask.astype(np.uint8), kernel, borderType=black, borderValue=0) > 0
    left, right = np.flatnonzero(inside.any(axis=0))[[0, -1]]
    third = (right - left) // 3
    middle = inside.copy()  # where a curved array's beams run down the picture
    middle[:, : left + third] = middle[:, right - third :] = False
    squares, counts = np.zeros((2, len(_BINS) - 1))
    shapes, neighbours, seen = [], [], []
    for run in shots:
        greys = [to_float(frame) for frame in run]
        high = [high_pass(grey) for grey in greys]
        neighbours += [ncc(a, b, mask) for a, b in pairwise(high)]
        level, square = blur(greys[0], 4.0)[inside], np.square(high[0][inside], dtype=np.float64)
        squares += np.histogram(level, _BINS, weights=square)[0]
        counts += np.histogram(level, _BINS)[0]
        shapes.append((_width(high[0], middle), _width(high[0].T, middle.T)))
        seen.append(greys[0][mask])
    along, across = np.mean(shapes, axis=0)
    pixels = np.concatenate(seen)
    deviation = np.where(counts > 500, np.sqrt(squares / np.maximum(counts, 1)), math.nan)
    return Texture(
        tuple(deviation.tolist()),
        float(along),
        float(across),
        finite_mean(neighbours),
        tuple(np.percentile(pixels, (10, 50, 90, 99)).tolist()),
        float((pixels < 0.02).mean()),
    )


def lit_part(frames: Frames) -> NDArray[np.bool_]:
    """The sector (H, W) of a clip that does not say where it is: the convex hull of what is not
    black, small marks left out."""
    lit = clip_mask(frames).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    hull = cv2.convexHull(cv2.findNonZero(lit))
    return cv2.fillConvexPoly(np.zeros_like(lit), hull, 1) > 0


def _width(high: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Full width at half maximum of the autocorrelation along the first axis, pixels."""
    before = 1.0
    for lag in range(1, _LAGS):
        now = ncc(high[:-lag], high[lag:], mask[:-lag] & mask[lag:])
        if now < 0.5:
            return 2 * (lag - 1 + (before - 0.5) / (before - now))
        before = now
    return math.nan


def stretches(subject: Subject, places: Sequence[int] = PLACES) -> list[Frames]:
    """Two neighbouring frames at some places of a clip of 60, with their persistence: uint8
    (2, H, W) each."""
    body = subject.body
    states, slips = body.states(FRAMES), body.out_of_plane(FRAMES)
    renderer, weights = Renderer(body, 1), body.display.persistence
    runs = []
    for place in places:
        greys = []
        for t in range(place - 3, place + 1):
            view = renderer.view(states[t], float(slips[t]), np.random.default_rng([1, t]))
            greys.append(body.display.grey(view.envelope))
        shown = (sum(map(operator.mul, weights, greys[q::-1])) for q in (2, 3))  # back in time
        runs.append(np.stack([renderer.convert(grey) for grey in shown]))
    return runs


def subjects(anatomy: str, seed: int, count: int) -> list[Subject]:
    """The first subjects of a seed, as they come."""
    return [draw_subject(Identity(anatomy, seed, number)) for number in range(count)]


def neighbours(runs: Sequence[Frames], subject: Subject) -> float:
    """Mean correlation of the high-pass of neighbouring frames, over the sector."""
    sector = subject.body.probe.sector()
    high = [[high_pass(to_float(frame)) for frame in run] for run in runs]
    return float(np.mean([ncc(a, b, sector) for a, b in high]))


def exact_field(subject: Subject) -> list[Check]:
    """How much of a clip the exact displacement of its first frame explains, and what it says of
    the landmarks."""
    body = subject.body
    states = body.states(FRAMES)[::10]
    points = landmark_pixels(body, states)
    sector, shots = body.probe.sector(), list(film(body, states, 1, [1]))
    first = to_float(shots[0].image)
    hold = oracle = off = 0.0
    for shot, at in zip(shots[1:], points[1:], strict=True):
        image = to_float(shot.image)
        hold += float(np.abs(first - image)[sector].mean())
        oracle += float(np.abs(warp_by_flow(first, shot.displacement) - image)[sector].mean())
        led = at + read_at(shot.displacement, at[None])[0]
        off = max(off, float(np.linalg.norm(led - points[0], axis=-1).max()))
    name = "first frame warped by the exact field: L1 / L1 of holding it"
    return [
        Check(name, oracle / hold, 0, 0.7),
        Check("field at a landmark: distance from where it was, worst, px", off, 0.0, 0.3),
    ]


def displacement_error(
    subject: Subject, state: NDArray[np.float64], shot: Shot
) -> NDArray[np.float64]:
    """By how many pixels a frame's displacement is off where the frame shows something: from the
    place at rest that it names, tissue is followed forward by the exact map."""
    probe, (velocity, pose) = subject.body.probe, subject.body.motion(state)
    lit = (blur(to_float(shot.image), 2.0) > 0.05) & probe.inside(probe.to_mm(pixel_grid()), 2)
    pixels = pixel_grid()[lit]
    there = pose.place(integrate(probe.to_mm(pixels + shot.displacement[lit]), velocity))
    return np.asarray(np.linalg.norm(probe.to_pixels(there) - pixels, axis=-1))


def exact_displacement(some: Sequence[Subject]) -> list[Check]:
    """The displacement at the height of each manoeuvre, which is when it is hardest to have."""
    found = []
    for subject in some:
        states = subject.body.states(FRAMES)
        points = landmark_pixels(subject.body, states)
        peak = int(np.linalg.norm(points - points[0], axis=-1).max(axis=1).argmax())
        shot = next(film(subject.body, states[peak : peak + 1], 1, [1]))
        found.append(displacement_error(subject, states[peak], shot))
    beyond = [float((error > 1).mean()) for error in found]
    who = f"{some[0].identity.anatomy}, displacement at the height of the manoeuvre"
    return [
        Check(f"{who}: mean error, px, mean of {len(some)}",
              float(np.mean([error.mean() for error in found])), 0, 0.1),
        Check("the same: share of lit pixels off by more than 1 px, median subject",
              float(np.median(beyond)), 0, 0.01),
        Check("the same, worst subject", max(beyond), 0, 0.01),
    ]  # fmt: skip


def exact_maps(some: Sequence[Subject]) -> list[Check]:
    """Landmarks are where they are defined to be, and the map and its inverse cancel."""
    bodies = [subject.body for subject in some]
    worst = max(map_error(body, state) for body in bodies for state in body.states(9))
    name = f"map of a state and back, landmarks too: worst error, {len(bodies)} subjects, px"
    return [Check(name, worst, 0.0, 0.25)]


def seeds(subject: Subject) -> list[Check]:
    """One seed, one picture; another seed, the same anatomy with other speckle."""
    body = subject.body
    states = body.states(FRAMES)[:1]
    a, again, b = (to_float(next(film(body, states, seed)).image) for seed in (1, 1, 2))
    sector = cv2.erode(body.probe.sector().astype(np.uint8), np.ones((17, 17))) > 0
    return [
        Check("one seed twice: pixels that differ", float((a != again).sum()), 0, 0),
        Check("two seeds, one anatomy: correlation of the low-pass (G_4)",
              ncc(blur(a, 4.0), blur(b, 4.0), sector), 0.9, 1.0),
        # Thin bright layers are anatomy too, and pass the high-pass.
        Check("the same, of the high-pass", ncc(high_pass(a), high_pass(b), sector), -0.35, 0.35),
    ]  # fmt: skip
