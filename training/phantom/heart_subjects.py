"""Drawing hearts, and checking user-edited ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .display import Display
from .draws import between_in, persistence
from .heart_cycle import Beating
from .heart_shape import HeartParameters
from .probe import Probe


def unfit(parameters: HeartParameters) -> str | None:
    """What is wrong with a subject whose parameters are each in range; None if nothing is."""
    apex, lateral, septal = np.array([parameters.apex, parameters.lateral, parameters.septal])
    axis, annulus = (lateral + septal) / 2 - apex, lateral - septal
    length, width = float(np.hypot(*axis)), float(np.hypot(*annulus))
    if not 40 <= length <= 130:
        return (
            f"apex is {length:.1f} mm from the middle of lateral and septal: it must be 40 to 130"
        )
    if not 15 <= width <= 60:
        return f"lateral and septal are {width:.1f} mm apart: they must be 15 to 60"
    if axis[1] * annulus[0] - axis[0] * annulus[1] < 0.7 * length * width:
        return "lateral must lie to the right of septal, the two across the axis from apex to them"
    return None


def draw(rng: np.random.Generator) -> HeartParameters:
    """A random subject; sizes of adults in the four-chamber view (Lang et al., J Am Soc
    Echocardiogr 2015)."""
    between = between_in(rng)
    apex = np.array([between(-2, 16), between(26, 35)])
    tilt, slant = np.radians(between(-10, 12)), np.radians(between(-8, 8))
    length, half = between(72, 90), between(14.5, 18.5)
    middle = apex + length * np.array([np.sin(tilt), np.cos(tilt)])
    across = half * np.array([np.cos(tilt - slant), -np.sin(tilt - slant)])
    lateral, septal = middle + across, middle - across
    atria = (between(38, 50), between(36, 46))
    depth = round(float(np.clip(middle[1] + atria[0] + between(2, 14), 130, 172)), 3)
    probe = Probe(
        frequency=between(2.0, 3.5), radius=between(8, 15), angle=between(75, 90), depth=depth,
        zoom=between(0.4, 1.0), focus=between(0.4, 0.65) * depth, axial=between(0.8, 1.0),
        lateral=between(2.0, 2.5),
    )  # fmt: skip
    weights = persistence(rng)
    display = Display(
        dynamic_range=between(52, 60), white=between(15, 21), gamma=between(1.15, 1.6),
        noise=between(52, 60), gain=between(0.14, 0.17), persistence=weights,
        frame_rate=between(30, 50),
    )  # fmt: skip
    strength = between(0.75, 1.15)
    beating = Beating(
        beats=between(1.5, 3.0), systole=between(0.32, 0.39), kick=between(0.18, 0.35),
        uneven=between(0.02, 0.07), contraction=round(between(0.24, 0.32) * strength, 3),
        annulus=(round(between(11.5, 15) * strength, 3), round(between(9, 12.5) * strength, 3)),
        narrowing=between(0.05, 0.14), apex=(between(-1.2, 1.2), between(-0.5, 1.8)),
        breath=between(0.2, 1.5), breaths=between(0.3, 0.8), sway=between(0.5, 2.0),
        tilt=between(0.5, 2.0), out_of_plane=between(0.3, 1.2), seed=int(rng.integers(2**31)),
    )  # fmt: skip
    return HeartParameters(
        probe=probe,
        display=display,
        apex=_point(apex),
        lateral=_point(lateral),
        septal=_point(septal),
        septum=between(8, 11.5),
        wall=between(8, 11.5),
        right=between(28, 38),
        offset=between(4, 8),
        atria=atria,
        coaptation=between(0.1, 0.35),
        clutter=between(-12, -3),
        window=(between(0, 14), between(2, 18)),
        beating=beating,
        seed=int(rng.integers(2**31)),
    )


def _point(mm: NDArray[np.float64]) -> tuple[float, float]:
    return round(float(mm[0]), 3), round(float(mm[1]), 3)
