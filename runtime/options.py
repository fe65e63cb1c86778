"""Turn an Animator's options into the controls of its session; refuse what the model cannot do."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

from .bundle.manifest import REFERENCE, Chain, DisplacementControl, Motion
from .keypoints import hull_scale
from .session import Session
from .support.errors import ConfigError

Scale = float | Literal["hull"]
Shading = Literal["off", "low", "full"]

SHARES: dict[Shading, float] = {"off": 0.0, "low": 0.5, "full": 1.0}


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
    """Set the controls. See `Animator.open`.

    Raises:
        ConfigError: an argument out of its range, or one that the model cannot honour.
    """
    if motion not in get_args(Motion):
        raise ConfigError(f"unknown motion {motion!r}", "relative or absolute")
    if scale != "hull" and not (isinstance(scale, int | float) and 0 < scale <= 10):
        raise ConfigError(
            f"scale is {scale!r}, but must be above 0 and at most 10, or 'hull'",
            "1 (the default) moves the source as far as the driving clip moves",
        )
    if shading not in SHARES:
        raise ConfigError(f"unknown shading {shading!r}", ", ".join(SHARES))
    chain = session.chain
    motions = chain.motions()
    if motion not in motions:
        hint = f"use {motions[0]}"
        if isinstance(chain.control, DisplacementControl):
            hint += (
                "; to reconstruct a clip, make the source frame the reference (--source-frame N "
                "--reference N)"
            )
        raise ConfigError(f"this model cannot make {motion} motion", hint)
    if len(motions) > 1:
        session.set_control("relative", float(motion == "relative"))
    if scale == "hull":
        if not has_hulls(chain):
            raise ConfigError(
                "this model has no keypoints of source and reference to take the scale from",
                "give the scale as a number, for example 1",
            )
        session.set_within("scale", 1.0)  # until source and reference are there
    elif session.has_control("scale") or scale != 1.0:
        session.set_control("scale", scale)
    smoothing = _as_smoothing(smooth)
    for name in ("min_cutoff", "beta"):
        if session.has_control(name) or smoothing is not None:
            session.set_control(name, 0.0 if smoothing is None else getattr(smoothing, name))
    if session.has_control("shade"):
        session.set_control("shade", SHARES[shading])
    elif shading != "full":
        raise ConfigError(
            f"this model cannot reduce its shading: {shading!r} has no effect",
            "leave shading out; only models that move by displacements have it",
        )


def _as_smoothing(smooth: AnySmoothing) -> Smoothing | None:
    if smooth is None or smooth is False:
        return None
    try:
        min_cutoff, beta = Smoothing() if smooth is True else map(float, smooth)
    except (TypeError, ValueError):
        raise ConfigError(f"smooth {smooth!r} is not (min_cutoff, beta)") from None
    if not (0 < min_cutoff < math.inf and 0 <= beta < math.inf):
        raise ConfigError("smoothing needs min_cutoff above 0 Hz and beta of at least 0")
    return Smoothing(min_cutoff, beta)


def has_hulls(chain: Chain) -> bool:
    """Whether source and reference have keypoints whose hulls can be compared."""
    return {"source_kp_value", REFERENCE + "kp_value"} <= chain.tensors().keys()


def fit_scale(session: Session) -> None:
    """Set the scale by the hulls of source and reference, which must both be set."""
    source = session.read("source_kp_value")[0]
    reference = session.read(REFERENCE + "kp_value")[0]
    session.set_within("scale", hull_scale(source, reference))
