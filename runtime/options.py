"""Turn an Animator's options into the controls of its session; refuse what the model cannot do."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .bundle.manifest import Chain, DisplacementControl, Motion
from .session import Session
from .support.errors import ConfigError

Scale = float | Literal["hull"]
Shading = Literal["off", "low", "full"]

SHARES: dict[Shading, float] = {"off": 0.0, "low": 0.5, "full": 1.0}
_NEUTRAL = {"shade": 1.0, "min_cutoff": 0.0, "beta": 0.0, "scale": 1.0}
"""What a model without that control does."""
SCALE_RANGE = (0.5, 2.0)
# A hundredth of the picture's side, squared: smaller hulls say nothing about size.
SMALLEST_AREA = 4e-4

Points = NDArray[Any]
"""(K, 2) keypoints, (x, y) in [-1, 1]."""

_HULLS = "source_kp_value", "reference_kp_value"


class Smoothing(NamedTuple):
    """One-Euro smoothing of keypoints or displacements (Casiez, Roussel and Vogel 2012).

    `min_cutoff` in Hz: a lower value is smoother at rest. `beta` in Hz per (unit/s), the picture
    being two units wide: a higher value follows fast motion with less lag.
    """

    min_cutoff: float = 1.5
    beta: float = 10.0


AnySmoothing = Smoothing | tuple[float, float] | bool | None
"""None or False is no smoothing, True the defaults, a tuple (min_cutoff, beta)."""


def set_options(
    session: Session, motion: Motion, scale: Scale, smooth: AnySmoothing, shading: Shading
) -> None:
    """Set the controls, or raise ConfigError; see `Animator.open`."""
    if motion not in get_args(Motion):
        raise ConfigError(f"unknown motion {motion!r}", "relative or absolute")
    if scale != "hull" and not (isinstance(scale, int | float) and 0 < scale <= 10):
        hint = "above 0 and at most 10, or 'hull'; 1 moves the source as far as the driving clip"
        raise ConfigError(f"scale is {scale!r}", hint)
    if shading not in SHARES:
        raise ConfigError(f"unknown shading {shading!r}", ", ".join(SHARES))
    min_cutoff, beta = _cutoffs(smooth)
    chain = session.chain
    motions = chain.motions()
    if motion not in motions:
        hint = f"use {motions[0]}"
        if isinstance(chain.control, DisplacementControl):
            hint += "; to reconstruct a clip, use one frame twice: --source-frame N --reference N"
        raise ConfigError(f"this model cannot make {motion} motion", hint)
    if scale == "hull" and not has_hulls(chain):
        what = "this model has no keypoints of source and reference to take the scale from"
        raise ConfigError(what, "give the scale as a number, for example 1")
    if shading != "full" and not session.has_control("shade"):
        what = f"this model cannot reduce its shading: {shading!r} has no effect"
        raise ConfigError(what, "leave it out; only models that move by displacements have it")
    wanted = {"shade": SHARES[shading], "min_cutoff": min_cutoff, "beta": beta}
    if len(motions) > 1:
        wanted["relative"] = float(motion == "relative")
    if scale == "hull":
        session.set_within("scale", 1.0)  # until source and reference are there
    else:
        wanted["scale"] = scale
    for name, value in wanted.items():
        if session.has_control(name) or value != _NEUTRAL[name]:
            session.set_control(name, value)


def _cutoffs(smooth: AnySmoothing) -> tuple[float, float]:
    """(min_cutoff, beta); zeros do not smooth."""
    if smooth is None or smooth is False:
        return 0.0, 0.0
    try:
        min_cutoff, beta = Smoothing() if smooth is True else map(float, smooth)
    except (TypeError, ValueError):
        raise ConfigError(f"smooth {smooth!r} is not (min_cutoff, beta)") from None
    if not (0 < min_cutoff < math.inf and 0 <= beta < math.inf):
        raise ConfigError("smoothing needs min_cutoff above 0 Hz and beta of at least 0")
    return min_cutoff, beta


def has_hulls(chain: Chain) -> bool:
    """Whether source and reference have keypoints whose hulls can be compared."""
    return chain.tensors().keys() >= {*_HULLS}


def hull_area(points: Points) -> float:
    """Area of the points' convex hull, computed in float32; the whole picture has 4.

    Fewer than three points, or points on one line, have area 0.
    """
    import cv2

    hull = cv2.convexHull(points.astype(np.float32))  # None for some points that coincide
    return 0.0 if hull is None or len(hull) < 3 else float(cv2.contourArea(hull))


def hull_scale(source: Points, reference: Points) -> float:
    """How much larger the source's anatomy is: sqrt of the ratio of hull areas, in [0.5, 2].

    It is the factor s of p = p_S + s (p_D - p_R), and 1 if a hull is too small to tell.
    """
    areas = hull_area(source), hull_area(reference)
    if min(areas) < SMALLEST_AREA:
        return 1.0
    return float(np.clip(math.sqrt(areas[0] / areas[1]), *SCALE_RANGE))


def fit_scale(session: Session) -> None:
    """Set the scale by the hulls of source and reference, which must both be set."""
    source, reference = (session.read(name)[0] for name in _HULLS)
    session.set_within("scale", hull_scale(source, reference))
