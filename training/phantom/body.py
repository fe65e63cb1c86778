"""What an anatomy provides: a body before a probe, its tissue, and how it moves.

docs/phantom-anatomy.md explains how to write a new one.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .motion import Pose, Velocity, integrate
from .paint import Canvas, Grid
from .probe import SIZE, Display, FloatArray, Probe

_LANDMARK_MARGIN = 2.0  # mm that a landmark keeps from the sector's border


class Body:
    """One subject, at rest in state 0.

    Convention: mm (x right, z away from the probe), origin at the middle of the probe's face.
    A state is float64 (Q,) and begins with each landmark's displacement (x, z). Its lengths are in
    points (1 is half of the picture's width), so that a state means the same in another subject.

    Args:
        parameters: of the class ``Parameters``.
        rest: the landmarks at rest, mm (P, 2).
    """

    Parameters: ClassVar[type[Any]]
    """A frozen dataclass with everything about a subject; ``probe`` and ``display`` among it."""
    keypoint_names: ClassVar[tuple[str, ...]]
    node: ClassVar[float] = 2.0
    """Spacing in mm of the grid on which the map is integrated: finer where tissue shears."""

    def __init__(self, parameters: Any, rest: FloatArray) -> None:
        self.parameters = parameters
        self.probe: Probe = parameters.probe
        self.display: Display = parameters.display
        self.rest = rest
        self.mm_per_point = SIZE / 2 * self.probe.mm_per_pixel

    @staticmethod
    def draw(rng: np.random.Generator) -> Any:
        """The parameters of a random subject."""
        raise NotImplementedError

    @staticmethod
    def unfit(parameters: Any) -> str | None:
        """What is wrong with user-edited parameters that are each in range, or None. It runs before
        the body is made, so it must check whatever that divides by."""
        return None

    def tissue(self, grid: Grid) -> Canvas:
        """The tissue at rest."""
        raise NotImplementedError

    def states(self, frames: int) -> FloatArray:
        """The whole manoeuvre in this many frames, (frames, Q); the first is 0, the rest pose."""
        raise NotImplementedError

    def velocity(self, state: FloatArray) -> Velocity:
        """The field that a state's map follows over pseudo-time 0..1, before its pose."""
        raise NotImplementedError

    def pose(self, state: FloatArray) -> Pose:
        """How the body lies before the probe."""
        return Pose(0.0, np.zeros(2), np.zeros(2))

    def out_of_plane(self, frames: int) -> FloatArray:
        """How far the image plane has slipped, mm (frames,); this decorrelates the speckle."""
        return np.zeros(frames)

    def impossible(self, state: FloatArray) -> str | None:
        """Why a state cannot be; None where it can."""
        return None

    def landmarks(self, state: FloatArray) -> FloatArray:
        """Where the landmarks are, mm (P, 2), by definition."""
        return self.rest + self.mm_per_point * state[: self.rest.size].reshape(-1, 2)

    def landmark_pixels(self, states: FloatArray) -> NDArray[np.float32]:
        """Where the landmarks are in these states (T, Q), float32 (T, P, 2), pixels."""
        return np.float32([self.probe.to_pixels(self.landmarks(state)) for state in states])

    def why_impossible(self, states: FloatArray) -> str | None:
        """What is wrong in the first bad one of these states (T, Q); None if all can be."""
        for number, state in enumerate(states):
            places = self.landmarks(state)
            pixels = self.probe.to_pixels(places)
            seen = self.probe.inside(places, _LANDMARK_MARGIN)
            seen &= ((pixels >= 0) & (pixels <= SIZE - 1)).all(axis=-1)
            if not seen.all():
                name, (x, z) = self.keypoint_names[seen.argmin()], places[seen.argmin()]
                where = f"frame {number} (x {x:.1f} mm, z {z:.1f} mm)"
                return f"{name} lies outside of the sector in {where}"
            if (problem := self.impossible(state)) is not None:
                return f"{problem} in frame {number}"
        return None

    def map_error(self, state: FloatArray) -> float:
        """The largest error of a state's map in pixels: between a landmark and where the map
        carries it, or between a point of the sector and where map and inverse bring it."""
        velocity = self.velocity(state)
        carried = self.pose(state).place(integrate(self.rest, velocity)) - self.landmarks(state)
        grid = self.probe.to_mm(np.stack(np.meshgrid(*[np.arange(4.0, SIZE, 8.0)] * 2), axis=-1))
        points = grid[self.probe.inside(grid)]
        there = integrate(points, velocity, backwards=True)
        gaps = np.concatenate([carried, integrate(there, velocity) - points])
        return float(np.hypot(*gaps.T).max()) / self.probe.mm_per_pixel
