"""A heart at rest, at the end of diastole: its measures and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from .arrays import FloatArray
from .body import Body
from .display import Display
from .heart_cycle import Beating
from .probe import Probe
from .ranges import Point, Range, Seed

_WIDEST = 0.6  # where along the axis the ventricle is widest; it is a cut ellipse about there


@dataclass(frozen=True)
class HeartParameters:
    """One subject. Lengths in mm; ranges are wider than the population."""

    probe: Probe
    display: Display
    apex: Point  # of the left ventricle's cavity at the end of diastole, a keypoint
    lateral: Point  # where the mitral leaflets are hinged: the other two keypoints
    septal: Point
    septum: Annotated[float, Range(3, 25)]  # its thickness
    wall: Annotated[float, Range(3, 25)]  # thickness of the lateral wall
    right: Annotated[float, Range(10, 70)]  # width of the right ventricle at its base
    offset: Annotated[float, Range(-10, 25)]  # how much nearer to the apex the tricuspid valve is
    atria: Annotated[tuple[float, float], Range(10, 90)]  # length of the left and the right one
    coaptation: Annotated[float, Range(-0.8, 0.8)]  # where the leaflets meet; 1: lateral hinge
    clutter: Annotated[float, Range(-60, 20)]  # strength of the haze before the apex, dB
    window: Annotated[tuple[float, float], Range(0, 60)]  # shadow at the left and right side, dB
    beating: Beating
    seed: Seed  # of tissue grain


class Frame(NamedTuple):
    """Coordinates of a ventricle: s from the apex along the axis, u across, in parallel with the
    annulus and positive towards the lateral wall; both mm."""

    apex: FloatArray
    along: FloatArray
    across: FloatArray
    length: float
    half: float
    """Of the annulus."""

    @classmethod
    def of(cls, landmarks: FloatArray) -> Frame:
        """From the keypoints (3, 2)."""
        apex, lateral, septal = landmarks
        axis, annulus = (lateral + septal) / 2 - apex, lateral - septal
        length, width = float(np.hypot(*axis)), float(np.hypot(*annulus))
        return cls(apex, axis / length, annulus / width, length, width / 2)

    def coordinates(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(2, ...) mm -> s and u."""
        x, z = points[0] - self.apex[0], points[1] - self.apex[1]
        (ax, az), (cx, cz) = self.along, self.across
        area = ax * cz - az * cx
        return (x * cz - z * cx) / area, (ax * z - az * x) / area

    def place(self, s: FloatArray | float, u: FloatArray | float) -> FloatArray:
        """s and u -> mm (..., 2)."""
        s, u = np.asarray(s, np.float64), np.asarray(u, np.float64)
        return self.apex + s[..., None] * self.along + u[..., None] * self.across


class HeartShape(Body):
    """A subject's heart, as its tissue is painted."""

    def __init__(self, parameters: HeartParameters) -> None:
        p = parameters
        super().__init__(p, np.array([p.apex, p.lateral, p.septal]))
        self.frame = Frame.of(self.rest)
        # The cut ellipse's half width, from its width at the annulus.
        self.radius = self.frame.half / float(np.sqrt(1 - ((1 - _WIDEST) / _WIDEST) ** 2))
        self.tricuspid = -(self.frame.half + 0.8 * p.septum + 0.5 * p.right)

    def half_width(self, share: FloatArray | float) -> FloatArray:
        """Half the width of the ventricle's cavity at rest, mm; ``share``: of the axis, 0 to 1."""
        return self.radius * np.sqrt(np.maximum(1 - ((share - _WIDEST) / _WIDEST) ** 2, 0))
