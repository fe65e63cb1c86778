"""The cardiac cycle in time: contraction, the annulus' way, the valves; breathing and sway.

Every course is 0 at time 0, the end of diastole. Time runs from 0 to 1 over the clip, however many
frames it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .manoeuvre import Sway

FloatArray = NDArray[np.float64]

_KICK = 0.80, 0.96  # when the atria contract, shares of a beat
_SHORTEST = 0.8  # beat, as a share of the usual one


@dataclass(frozen=True)
class Beating:
    """How the heart beats.

    Attributes:
        beats: in the whole clip.
        systole: its share of a beat.
        kick: what is left of the contraction for the atria to undo, a share.
        uneven: deviation of a beat's strength and length, shares.
        contraction: of the endocardium's radius, a share.
        annulus: way of the annulus' lateral and septal end towards the apex, mm.
        narrowing: of the annulus, a share.
        apex: way of the apex in systole (x, z), mm.
        breath: amplitude, mm; breaths: in the whole clip.
        sway: of the probe, mm; tilt: degrees; both reach so far about rest.
        out_of_plane: slip of the image plane at the end of systole, mm.
        seed: of the beats' differences and the sway's course.
    """

    beats: float
    systole: float
    kick: float
    uneven: float
    contraction: float
    annulus: tuple[float, float]
    narrowing: float
    apex: tuple[float, float]
    breath: float
    breaths: float
    sway: float
    tilt: float
    out_of_plane: float
    seed: int


class Course(NamedTuple):
    """At T moments: squeeze, lateral, septal, valve (T,), the first three about 0 to 1, valve -1 to
    1; sway (T, 2) mm and tilt (T,) radians of the body before the probe."""

    squeeze: FloatArray
    lateral: FloatArray
    septal: FloatArray
    valve: FloatArray
    sway: FloatArray
    tilt: FloatArray


class Courses:
    """The courses of one subject's clip."""

    def __init__(self, beating: Beating) -> None:
        b = self.beating = beating
        rng = np.random.default_rng([b.seed, 78])
        count = int(np.ceil(b.beats / _SHORTEST)) + 1
        length = np.clip(1 + b.uneven * rng.standard_normal(count), _SHORTEST, 1.25)
        self._starts = np.concatenate([[0.0], np.cumsum(length)])
        self._strength = np.clip(1 + b.uneven * rng.standard_normal(count), 0.8, 1.2)
        self._late = rng.uniform(0.0, 0.04, 2)  # the annulus' two ends are not in step
        self._breath = rng.uniform(0, 2 * np.pi)
        self._sway = Sway(b.seed)

    def __call__(self, time: FloatArray) -> Course:
        """Args: time: (T,) in 0..1."""
        b = self.beating
        at = time * b.beats
        beat = np.searchsorted(self._starts, at, side="right") - 1
        phase = (at - self._starts[beat]) / np.diff(self._starts)[beat]
        strength = self._strength[beat]
        lateral, septal = (
            strength * _pull(phase, b.systole + late, b.kick + 0.1) for late in self._late
        )
        turn = 2 * np.pi * b.breaths * time + self._breath
        breath = b.breath * (np.sin(turn) - np.sin(self._breath))
        sway = b.sway * np.stack([self._sway(time, 0), self._sway(time, 1)], axis=1)
        return Course(
            strength * _pull(phase, b.systole, b.kick),
            lateral,
            septal,
            _valve(phase, b.systole),
            sway + breath[:, None] * np.array([0.3, 0.8]),
            np.radians(b.tilt) * self._sway(time, 2),
        )


def _pull(phase: FloatArray, systole: float, kick: float) -> FloatArray:
    """Ejection, relaxation, rapid filling, diastasis, atrial contraction."""
    return _through(
        phase,
        (0.0, 0.0), (systole, 1.0), (systole + 0.06, 0.97), (systole + 0.25, kick + 0.04),
        (_KICK[0], kick), (_KICK[1], 0.0), (1.0, 0.0),
    )  # fmt: skip


def _valve(phase: FloatArray, systole: float) -> FloatArray:
    """Shut in systole, flung open by rapid filling, half open in diastasis, open in the kick."""
    return _through(
        phase,
        (0.0, 0.0), (0.06, -1.0), (systole + 0.05, -1.0), (systole + 0.14, 1.0),
        (systole + 0.27, -0.1), (_KICK[0], -0.2), (0.89, 0.7), (1.0, 0.0),
    )  # fmt: skip


def _through(phase: FloatArray, *knots: tuple[float, float]) -> FloatArray:
    """Smoothly from knot (phase, value) to knot."""
    at, value = np.array(knots).T
    i = np.clip(np.searchsorted(at, phase, side="right") - 1, 0, len(at) - 2)
    t = np.clip((phase - at[i]) / (at[i + 1] - at[i]), 0, 1)
    return np.asarray(value[i] + (value[i + 1] - value[i]) * t**3 * (t * (6 * t - 15) + 10))
