"""The cardiac cycle in time: contraction, the annulus' way, the valves; breathing and sway.

Every course is 0 at time 0, the end of diastole. Time runs from 0 to 1 over the clip, however many
frames it has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from .arrays import FloatArray
from .manoeuvre import sway
from .ranges import Range, Seed

_KICK = 0.80, 0.96  # when the atria contract, shares of a beat
_SHORTEST = 0.8  # beat, as a share of the usual one


@dataclass(frozen=True)
class Beating:
    """How the heart beats; ranges are wider than the population."""

    beats: Annotated[float, Range(0.1, 20)]  # in the whole clip
    systole: Annotated[float, Range(0.2, 0.5)]  # its share of a beat
    kick: Annotated[float, Range(0, 0.8)]  # share of the contraction that the atria undo
    uneven: Annotated[float, Range(0, 0.3)]  # deviation of a beat's strength and length, shares
    contraction: Annotated[float, Range(0, 0.45)]  # of the endocardium's radius, a share
    annulus: Annotated[tuple[float, float], Range(-5, 25)]  # lateral, septal: mm to the apex
    narrowing: Annotated[float, Range(-0.2, 0.3)]  # of the annulus, a share
    apex: Annotated[tuple[float, float], Range(-8, 8)]  # its way in systole (x, z), mm
    breath: Annotated[float, Range(0, 10)]  # amplitude, mm
    breaths: Annotated[float, Range(0, 20)]  # in the whole clip
    sway: Annotated[float, Range(0, 10)]  # of the probe, mm about rest
    tilt: Annotated[float, Range(0, 15)]  # of the probe, degrees about rest
    out_of_plane: Annotated[float, Range(-20, 20)]  # slip at the end of systole, mm
    seed: Seed  # of the beats' differences and the sway


class Courses(NamedTuple):
    """A subject's clip at T moments.

    Attributes:
        squeeze, lateral, septal: contraction, and way of the annulus' ends, about 0 to 1, (T,).
        valve: -1 closed to 1 open, (T,).
        sway: mm (T, 2); tilt: radians (T,); of the body before the probe.
    """

    squeeze: FloatArray
    lateral: FloatArray
    septal: FloatArray
    valve: FloatArray
    sway: FloatArray
    tilt: FloatArray


def courses(beating: Beating, time: FloatArray) -> Courses:
    """The courses of one subject at ``time`` (T,), from 0 to 1."""
    b = beating
    rng = np.random.default_rng([b.seed, 78])
    count = int(np.ceil(b.beats / _SHORTEST)) + 1
    length = np.clip(1 + b.uneven * rng.standard_normal(count), _SHORTEST, 1.25)
    strengths = np.clip(1 + b.uneven * rng.standard_normal(count), 0.8, 1.2)
    late = rng.uniform(0.0, 0.04, 2)  # the annulus' two ends are not in step
    first_breath = rng.uniform(0, 2 * np.pi)

    starts = np.concatenate([[0.0], np.cumsum(length)])
    at = time * b.beats
    beat = np.searchsorted(starts, at, side="right") - 1
    phase = (at - starts[beat]) / np.diff(starts)[beat]
    strength = strengths[beat]
    lateral, septal = (strength * _pull(phase, b.systole + by, b.kick + 0.1) for by in late)
    turn = 2 * np.pi * b.breaths * time + first_breath
    breath = b.breath * (np.sin(turn) - np.sin(first_breath))
    shift, tilt = sway(b.seed, time, b.sway, b.tilt)
    return Courses(
        strength * _pull(phase, b.systole, b.kick),
        lateral,
        septal,
        _valve(phase, b.systole),
        shift + breath[:, None] * np.array([0.3, 0.8]),
        tilt,
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
    return value[i] + (value[i + 1] - value[i]) * t**3 * (t * (6 * t - 15) + 10)
