"""What an anatomy provides: a body before a probe, its tissue, and how it moves.

docs/phantom-anatomy.md explains how to write a new one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .arrays import FloatArray
from .display import Display
from .paint import Canvas
from .probe import SIZE, Probe
from .tissue_map import Grid, Motion, integrate

LANDMARK_MARGIN = 2.0
"""mm that a landmark keeps from the sector's border."""


class Body:
    """One subject, at rest in state 0.

    Convention: mm (x right, z away from the probe), origin at the middle of the probe's face.
    A state is float64 (Q,) and begins with each landmark's displacement (x, z). Its lengths are in
    points (1 is half of the picture's width), so that a state means the same in another subject.

    Args:
        parameters: a dataclass with, among others, ``probe`` and ``display``.
        rest: the landmarks at rest, mm (P, 2).
    """

    keypoint_names: ClassVar[tuple[str, ...]]
    node: ClassVar[float] = 2.0
    """Spacing in mm of the grid on which the map is integrated: finer where tissue shears."""

    def __init__(self, parameters: Any, rest: FloatArray) -> None:
        self.parameters = parameters
        self.probe: Probe = parameters.probe
        self.display: Display = parameters.display
        self.rest = rest
        self.mm_per_point = SIZE / 2 * self.probe.mm_per_pixel

    def landmarks(self, state: FloatArray) -> FloatArray:
        """Where the landmarks are, mm (P, 2), by definition."""
        return self.rest + self.mm_per_point * state[: self.rest.size].reshape(-1, 2)

    def tissue(self, grid: Grid) -> Canvas:
        """The tissue at rest."""
        raise NotImplementedError

    def states(self, frames: int) -> FloatArray:
        """The whole manoeuvre in this many frames, (frames, Q); the first is 0, the rest pose."""
        raise NotImplementedError

    def motion(self, state: FloatArray) -> Motion:
        """The map of a state."""
        raise NotImplementedError

    def out_of_plane(self, frames: int) -> FloatArray:
        """How far the image plane has slipped, mm (frames,); this decorrelates the speckle."""
        return np.zeros(frames)

    def impossible(self, state: FloatArray) -> str | None:
        """Why a state cannot be; None where it can."""
        return None


def why_impossible(body: Body, states: FloatArray) -> str | None:
    """What is wrong with a body in the first bad one of these states (T, Q); None if all can be."""
    for number, state in enumerate(states):
        places = body.landmarks(state)
        pixels = body.probe.to_pixels(places)
        seen = body.probe.inside(places, LANDMARK_MARGIN)
        seen &= ((pixels >= 0) & (pixels <= SIZE - 1)).all(axis=-1)
        if not seen.all():
            first = int(seen.argmin())
            x, z = places[first]
            return (
                f"{body.keypoint_names[first]} lies outside of the sector in frame {number} "
                f"(x {x:.1f} mm, z {z:.1f} mm)"
            )
        if (problem := body.impossible(state)) is not None:
            return f"{problem} in frame {number}"
    return None


def map_error(body: Body, state: FloatArray) -> float:
    """The largest error of a state's map in pixels: between a landmark and where the map carries
    it, or between a point of the sector and where map and inverse bring it."""
    velocity, pose = body.motion(state)
    carried = pose.place(integrate(body.rest, velocity)) - body.landmarks(state)
    grid = body.probe.to_mm(np.stack(np.meshgrid(*[np.arange(4.0, SIZE, 8.0)] * 2), axis=-1))
    points = grid[body.probe.inside(grid)]
    there = integrate(points, velocity, backwards=True)
    gaps = np.concatenate([carried, integrate(there, velocity) - points])
    return float(np.hypot(*gaps.T).max()) / body.probe.mm_per_pixel
