"""How a manoeuvre goes in time: strain and release, breathing, the sway of a hand-held probe.

Every course is 0 at time 0: the first frame is the rest pose. Time runs from 0 to 1 over the clip,
however many frames it has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def strain(time: FloatArray, start: float, peak: float, release: float, left: float) -> FloatArray:
    """0 until ``start``, 1 from ``peak`` on for a while, down to ``left`` at ``release``."""
    hold = peak + 0.35 * (release - peak)
    rise = _smooth((time - start) / (peak - start))
    fall = _smooth((time - hold) / max(release - hold, 1e-6))
    return rise * (1 - (1 - left) * fall)


def breathing(time: FloatArray, amplitude: float, breaths: float, effort: FloatArray) -> FloatArray:
    """Up and down; the breath is held under strain."""
    return amplitude * np.sin(2 * np.pi * breaths * time) * (1 - 0.8 * np.clip(effort, 0, 1))


class Sway:
    """Slow random courses in about [-1, 1]; one for each direction."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 77])
        self._rate = rng.uniform(0.3, 1.6, (3, 3))
        self._phase = rng.uniform(0, 2 * np.pi, (3, 3))

    def __call__(self, time: FloatArray, direction: int) -> FloatArray:
        turn = 2 * np.pi * self._rate[direction] * time[:, None] + self._phase[direction]
        return np.asarray((np.sin(turn) - np.sin(self._phase[direction])).mean(axis=1) * 0.7)


def _smooth(t: FloatArray) -> FloatArray:
    t = np.clip(t, 0, 1)
    return t**3 * (t * (6 * t - 15) + 10)
