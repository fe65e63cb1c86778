"""What an anatomy has to say: a body before a probe, what it is made of, and how it moves.

A new anatomy is one file with a class like ``Body`` below and a function that draws its parameters;
docs/phantom-anatomy.md walks through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .display import Display
from .probe import SIZE, Probe
from .tissue_map import Grid, Motion, integrate

FloatArray = NDArray[np.float64]

LANDMARK_MARGIN = 2.0
"""mm that a landmark keeps from the sector's border."""


class Tissue(Protocol):
    """A raster of what the body at rest is made of.

    Attributes:
        grid: its points, mm.
        echo: float32 (rows, columns), echogenicity in dB; 0 is soft tissue.
        loss: float32 (rows, columns), attenuation there and back, dB per mm.
    """

    @property
    def grid(self) -> Grid: ...
    @property
    def echo(self) -> NDArray[np.float32]: ...
    @property
    def loss(self) -> NDArray[np.float32]: ...


class Body(Protocol):
    """One subject, at rest in state 0.

    Convention: mm (x right, z away from the probe), origin at the middle of the probe's face.
    A state is float64 (Q,); lengths in it are in points (half_pixel, [-1, 1] over the picture),
    because they are what a relative transfer of keypoints carries from one picture to another.

    Attributes:
        parameters: what it was made from, of its anatomy's type.
        keypoint_names: of the landmarks, in their order.
        node: spacing of the grid that its map is integrated on, mm: finer where tissue shears.
    """

    @property
    def parameters(self) -> Any: ...
    @property
    def probe(self) -> Probe: ...
    @property
    def display(self) -> Display: ...
    @property
    def keypoint_names(self) -> tuple[str, ...]: ...
    @property
    def node(self) -> float: ...

    def tissue(self, grid: Grid) -> Tissue:
        """What it is made of."""

    def states(self, frames: int) -> FloatArray:
        """The whole manoeuvre in so many frames, (frames, Q); the first is 0, the rest pose."""

    def motion(self, state: FloatArray) -> Motion:
        """The map of a state."""

    def landmarks(self, state: FloatArray) -> FloatArray:
        """Where its keypoints are, mm (P, 2), by definition."""

    def out_of_plane(self, frames: int) -> FloatArray:
        """How far the image plane has slipped at each frame, mm (frames,); it decorrelates the
        speckle."""

    def impossible(self, state: FloatArray) -> str | None:
        """Why a state cannot be; None where it can."""


@dataclass(frozen=True)
class Anatomy:
    """A kind of body.

    Attributes:
        parameters: a frozen dataclass, everything about a subject.
        draw: a random subject's.
        body: the subject with these parameters.
        unfit: what is wrong with parameters that somebody typed, None where nothing is; it sees
            them before ``body`` does, so whatever ``body`` divides by is checked here. Probe and
            display are checked already.
    """

    name: str
    parameters: type[Any]
    draw: Callable[[np.random.Generator], Any]
    body: Callable[[Any], Body]
    unfit: Callable[[Any], str | None] = lambda parameters: None


def why_impossible(body: Body, states: FloatArray) -> str | None:
    """What is wrong with a body in some of these states (T, Q); None where all is well."""
    problem = body.probe.impossible() or body.display.impossible()
    if problem is not None:
        return problem
    for number, state in enumerate(states):
        places = body.landmarks(state)
        inside = body.probe.inside(places, LANDMARK_MARGIN)
        for name, place, seen in zip(body.keypoint_names, places, inside, strict=True):
            if not seen or not _in_picture(body.probe, place):
                return (
                    f"{name} lies outside of the sector in frame {number} "
                    f"(x {place[0]:.1f} mm, z {place[1]:.1f} mm)"
                )
        if (problem := body.impossible(state)) is not None:
            return f"{problem} in frame {number}"
    return None


def map_error(body: Body, state: FloatArray) -> float:
    """By how many pixels the map of a state fails at most: between a landmark and where the map
    carries it, and between a point of the sector and where it comes back to."""
    velocity, pose = body.motion(state)
    rest = body.landmarks(np.zeros_like(state))
    carried = pose.place(integrate(rest, velocity))
    wrong = [carried - body.landmarks(state)]
    grid = body.probe.to_mm(np.stack(np.meshgrid(*[np.arange(4.0, SIZE, 8.0)] * 2), axis=-1))
    points = grid[body.probe.inside(grid)]
    there = integrate(points, velocity, backwards=True)
    wrong.append(integrate(there, velocity) - points)
    way = np.concatenate([np.hypot(*gap.T) for gap in wrong])
    return float(way.max()) / body.probe.mm_per_pixel


def _in_picture(probe: Probe, place: FloatArray) -> bool:
    pixels = probe.to_pixels(place)
    return bool(((pixels >= 0) & (pixels <= SIZE - 1)).all())
