"""Courses in time: a Valsalva manoeuvre, a heart's beats, breathing, the sway of the probe.

Every course is 0 at time 0: the first frame is the rest pose. Time runs from 0 to 1 over the clip,
however many frames it has. Ranges are wider than the population, so that rare cases can be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from .motion import smooth
from .probe import FloatArray, Range, Seed

_SHORTEST = 0.8  # beat, as a share of the usual one


@dataclass(frozen=True)
class Valsalva:
    """How the manoeuvre goes. Times are shares of the clip."""

    start: Annotated[float, Range(0, 1)]
    peak: Annotated[float, Range(0, 1)]
    release: Annotated[float, Range(0, 2)]
    left: Annotated[float, Range(0, 1)]  # share of the descent that is left at the end
    descent: Annotated[float, Range(-30, 60)]  # of the bladder neck towards the probe, mm
    opening: Annotated[float, Range(-90, 90)]  # degrees the neck swings about the symphysis
    rotation: Annotated[float, Range(-120, 120)]  # of the urethra, degrees
    levator: Annotated[float, Range(-30, 40)]  # descent of the levator plate, mm
    breath: Annotated[float, Range(0, 15)]  # amplitude, mm
    breaths: Annotated[float, Range(0, 20)]  # in the whole clip
    sway: Annotated[float, Range(0, 15)]  # of the probe, mm about rest
    tilt: Annotated[float, Range(0, 20)]  # of the probe, degrees about rest
    out_of_plane: Annotated[float, Range(-20, 20)]  # slip of the image plane at the peak, mm
    seed: Seed  # of the sway

    def strain(self, time: FloatArray) -> FloatArray:
        """0 until ``start``, 1 from ``peak`` on for a while, down to ``left`` at ``release``."""
        held = self.peak + 0.35 * (self.release - self.peak)
        rise = smooth((time - self.start) / (self.peak - self.start))
        fall = smooth((time - held) / max(self.release - held, 1e-6))
        return rise * (1 - (1 - self.left) * fall)

    def breathing(self, time: FloatArray) -> FloatArray:
        """Up and down, mm; the breath is held under strain."""
        wave = self.breath * np.sin(2 * np.pi * self.breaths * time)
        return wave * (1 - 0.8 * np.clip(self.strain(time), 0, 1))


@dataclass(frozen=True)
class Beating:
    """How the heart beats."""

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

    def courses(self, time: FloatArray) -> tuple[FloatArray, ...]:
        """Contraction, way of the annulus' lateral and septal end (about 0 to 1), valves (-1 closed
        to 1 open), each (T,); sway with the breath (T, 2), mm; tilt (T,), radians."""
        rng = np.random.default_rng([self.seed, 78])
        count = int(np.ceil(self.beats / _SHORTEST)) + 1
        length = np.clip(1 + self.uneven * rng.standard_normal(count), _SHORTEST, 1.25)
        strengths = np.clip(1 + self.uneven * rng.standard_normal(count), 0.8, 1.2)
        late = rng.uniform(0.0, 0.04, 2)  # the annulus' two ends are not in step
        first = rng.uniform(0, 2 * np.pi)

        starts = np.concatenate([[0.0], np.cumsum(length)])
        at = time * self.beats
        beat = np.searchsorted(starts, at, side="right") - 1
        phase = (at - starts[beat]) / np.diff(starts)[beat]

        def pull(late: float, kick: float) -> FloatArray:
            """Ejection, relaxation, rapid filling, diastasis, the atria's kick from 0.8 to 0.96."""
            end = self.systole + late
            knots = (0, 0), (end, 1), (end + 0.06, 0.97), (end + 0.25, kick + 0.04), (0.8, kick)
            return strengths[beat] * _through(phase, *knots, (0.96, 0), (1, 0))

        # Shut in systole, flung open by rapid filling, half open in diastasis, open in the kick.
        end = self.systole
        opening = (0, 0), (0.06, -1), (end + 0.05, -1), (end + 0.14, 1), (end + 0.27, -0.1)
        valve = _through(phase, *opening, (0.8, -0.2), (0.89, 0.7), (1, 0))
        breath = self.breath * (np.sin(2 * np.pi * self.breaths * time + first) - np.sin(first))
        shift, tilt = sway(self.seed, time, self.sway, self.tilt)
        shift = shift + breath[:, None] * np.array([0.3, 0.8])
        ends = (pull(by, self.kick + 0.1) for by in late)
        return pull(0.0, self.kick), *ends, valve, shift, tilt


def sway(seed: int, time: FloatArray, reach: float, tilt: float) -> tuple[FloatArray, FloatArray]:
    """Slow random drift: shifts (T, 2) of about ``reach`` mm and turns (T,), in radians, of about
    ``tilt`` degrees."""
    rng = np.random.default_rng([seed, 77])
    rate, phase = rng.uniform(0.3, 1.6, (3, 3)), rng.uniform(0, 2 * np.pi, (3, 3))

    def course(direction: int) -> FloatArray:
        turn = 2 * np.pi * rate[direction] * time[:, None] + phase[direction]
        return (np.sin(turn) - np.sin(phase[direction])).mean(axis=1) * 0.7

    shift = reach * np.stack([course(0), course(1)], axis=1)
    return shift, np.radians(tilt) * course(2)


def _through(phase: FloatArray, *knots: tuple[float, float]) -> FloatArray:
    """Smoothly from knot (phase, value) to knot."""
    at, value = np.array(knots, np.float64).T
    i = np.clip(np.searchsorted(at, phase, side="right") - 1, 0, len(at) - 2)
    t = np.clip((phase - at[i]) / (at[i + 1] - at[i]), 0, 1)
    return value[i] + (value[i + 1] - value[i]) * t**3 * (t * (6 * t - 15) + 10)
