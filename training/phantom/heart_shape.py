"""A heart at rest, at the end of diastole: its measures and where its parts lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .display import Display
from .heart_cycle import Beating
from .probe import SIZE, Probe

FloatArray = NDArray[np.float64]

_WIDEST = 0.6  # where along the axis the ventricle is widest; it is a cut ellipse about there


@dataclass(frozen=True)
class HeartParameters:
    """One subject. Lengths in mm, points (x, z) from the middle of the face.

    Attributes:
        apex: of the left ventricle's cavity at the end of diastole, a keypoint.
        lateral, septal: where the mitral leaflets are hinged, the other keypoints.
        septum, wall: thickness of the septum and of the lateral wall.
        right: width of the right ventricle at its base; offset: how much nearer to the apex the
            tricuspid valve is.
        atria: length of the left and of the right atrium.
        coaptation: where the mitral leaflets meet, 0 in the middle, 1 at the lateral hinge.
        clutter: strength of the haze before the apex, dB.
        window: how much the lungs and ribs at the sides darken, dB (left, right).
        seed: of tissue grain and scatterers.
    """

    probe: Probe
    display: Display
    apex: tuple[float, float]
    lateral: tuple[float, float]
    septal: tuple[float, float]
    septum: float
    wall: float
    right: float
    offset: float
    atria: tuple[float, float]
    coaptation: float
    clutter: float
    window: tuple[float, float]
    beating: Beating
    seed: int


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


class HeartShape:
    """A subject's heart, as its tissue is painted."""

    def __init__(self, parameters: HeartParameters) -> None:
        p = self.parameters = parameters
        self.probe, self.display = p.probe, p.display
        self.rest = np.array([p.apex, p.lateral, p.septal])
        self.frame = Frame.of(self.rest)
        # The cut ellipse's half width, from its width at the annulus.
        self.radius = self.frame.half / float(np.sqrt(1 - ((1 - _WIDEST) / _WIDEST) ** 2))
        self.tricuspid = -(self.frame.half + 0.8 * p.septum + 0.5 * p.right)
        self.mm_per_point = SIZE / 2 * p.probe.mm_per_pixel

    def half_width(self, share: FloatArray) -> FloatArray:
        """Of the ventricle's cavity at rest, mm; ``share``: of the axis, 0 to 1."""
        return np.asarray(
            self.radius * np.sqrt(np.maximum(1 - ((share - _WIDEST) / _WIDEST) ** 2, 0))
        )
