"""What all anatomies draw in the same way."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_PERSISTENCE = (0.7, 0.3, 0.0), (0.6, 0.3, 0.1), (0.5, 0.3, 0.2)


def between_in(rng: np.random.Generator) -> Callable[[float, float], float]:
    """Draws numbers between two others, evenly, to three decimals."""

    def between(low: float, high: float) -> float:
        return round(float(rng.uniform(low, high)), 3)

    return between


def persistence(rng: np.random.Generator) -> tuple[float, float, float]:
    """Weights of a usual scanner's persistence."""
    return _PERSISTENCE[int(rng.integers(3))]
