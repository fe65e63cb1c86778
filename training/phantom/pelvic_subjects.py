"""Drawing pelvic subjects, and checking user-edited ones."""

from __future__ import annotations

import math

import numpy as np

from .display import Display
from .draws import between_in, persistence
from .pelvic_shape import PelvicParameters, Valsalva
from .probe import Probe

_APART = (("neck", "meatus"), ("verge", "junction"), ("neck", "edge"))


def unfit(parameters: PelvicParameters) -> str | None:
    """What is wrong with a subject whose parameters are each in range; None if nothing is."""
    p, m = parameters, parameters.manoeuvre
    for one, other in _APART:
        way = math.dist(getattr(p, one), getattr(p, other))
        if way < 5:
            return f"{one} and {other} are {way:.1f} mm apart: 5 mm is the least"
    if p.junction[1] < 8:
        return f"junction is at depth {p.junction[1]:g} mm: it must be at least 8 mm deep"
    if not m.start < m.peak < m.release:
        return (
            f"manoeuvre.start {m.start:g}, manoeuvre.peak {m.peak:g}, manoeuvre.release "
            f"{m.release:g}: they must come in this order"
        )
    return None


def draw(rng: np.random.Generator) -> PelvicParameters:
    """A random subject."""
    between = between_in(rng)
    depth = between(72, 95)
    probe = Probe(
        frequency=between(3.5, 6.0), radius=between(40, 60), angle=between(70, 88), depth=depth,
        zoom=between(0.3, 1.0), focus=between(0.4, 0.65) * depth, axial=between(0.5, 0.7),
        lateral=between(1.1, 1.6),
    )  # fmt: skip
    dynamic_range = between(53, 60)
    weights = persistence(rng)
    display = Display(
        dynamic_range=dynamic_range, white=between(23, 29), gamma=between(1.15, 1.7),
        noise=between(52, 62), gain=between(0.17, 0.29), persistence=weights,
        frame_rate=between(15, 30),
    )  # fmt: skip
    edge = (between(-20, -10), between(17, 26))
    neck = (round(edge[0] + between(8, 17), 3), round(edge[1] + between(20, 28), 3))
    thick = between(12, 18)
    length = between(30, 38)
    descent = round(float(np.clip(rng.gamma(4.0, 17 / 4.0), 1.5, 27)), 3)
    severity = descent / 17
    junction = (round(neck[0] + between(20, 27), 3), round(neck[1] + between(-6, 2), 3))
    manoeuvre = Valsalva(
        start=between(0.06, 0.18), peak=between(0.42, 0.58), release=between(0.82, 0.97),
        left=between(0.0, 0.35), descent=descent, opening=between(4, 12) * min(severity, 2.0),
        rotation=round(float(np.clip(rng.normal(32, 18) * severity**0.5, 0, 85)), 3),
        levator=round(float(np.clip(rng.normal(9, 4) * severity**0.5, 0, 20)), 3),
        breath=between(0.3, 1.6), breaths=between(0.6, 1.8), sway=between(1.0, 4.0),
        tilt=between(1.0, 4.0), out_of_plane=between(0.0, 1.2),
        seed=int(rng.integers(2**31)),
    )  # fmt: skip
    return PelvicParameters(
        probe=probe,
        display=display,
        edge=edge,
        symphysis=(length, thick),
        symphysis_angle=between(20, 40),
        neck=neck,
        bladder=(between(20, 46), between(12, 38)),
        bladder_angle=between(-28, 8),
        wall=between(3, 5),
        urethra=between(10, 14),
        meatus=(round(edge[0] + between(15, 21), 3), between(5, 8)),
        junction=junction,
        verge=(round(junction[0] + between(-2, 6), 3), between(3, 5)),
        anorectal=between(95, 125),
        hiatus=between(45, 55),
        fat=between(6, 11),
        manoeuvre=manoeuvre,
        seed=int(rng.integers(2**31)),
    )
