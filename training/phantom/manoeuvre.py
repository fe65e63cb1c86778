"""Courses in time: strain and release, breathing, the sway of a hand-held probe.

Every course is 0 at time 0: the first frame is the rest pose. Time runs from 0 to 1 over the clip,
however many frames it has.
"""

from __future__ import annotations

import numpy as np

from .arrays import FloatArray


def strain(time: FloatArray, start: float, peak: float, release: float, left: float) -> FloatArray:
    """0 until ``start``, 1 from ``peak`` on for a while, down to ``left`` at ``release``."""
    hold = peak + 0.35 * (release - peak)
    rise = _smooth((time - start) / (peak - start))
    fall = _smooth((time - hold) / max(release - hold, 1e-6))
    return rise * (1 - (1 - left) * fall)


def breathing(time: FloatArray, amplitude: float, breaths: float, effort: FloatArray) -> FloatArray:
    """Up and down; the breath is held under strain."""
    return amplitude * np.sin(2 * np.pi * breaths * time) * (1 - 0.8 * np.clip(effort, 0, 1))


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


def _smooth(t: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0, 1)
    return t**3 * (t * (6 * t - 15) + 10)
