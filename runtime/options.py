"""What an Animator is asked for becomes the controls of its session, or is refused."""

from __future__ import annotations

from typing import Literal, get_args

from .bundle.manifest import REFERENCE, Chain, DisplacementControl, Motion
from .keypoints import hull_scale
from .session import Session
from .smoothing import Smoothing
from .support.errors import ConfigError

Scale = float | Literal["hull"]


def set_options(session: Session, motion: Motion, scale: Scale, smooth: Smoothing | None) -> None:
    """Set the controls; refuse what the model cannot honour.

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
    chain = session.chain
    motions = chain.motions()
    if motion not in motions:
        hint = f"take {motions[0]}"
        if isinstance(chain.control, DisplacementControl):
            hint += (
                ": its motion is always seen from a reference frame; to reconstruct a clip, take "
                "the source frame as the reference (--source-frame N --reference N)"
            )
        raise ConfigError(f"this model cannot make {motion} motion", hint)
    if len(motions) > 1:
        session.set_control("relative", float(motion == "relative"))
    if scale == "hull" and not has_hulls(chain):
        raise ConfigError(
            "this model has no keypoints of source and reference to take the scale from",
            "give the scale as a number: 1 (the default) moves the source as far as the driving "
            "clip moves",
        )
    if scale == "hull" and session.has_control("scale"):
        set_within(session, "scale", 1.0)  # until source and reference are there
    elif session.has_control("scale") or scale != 1.0:
        session.set_control("scale", 1.0 if scale == "hull" else scale)
    for name in ("min_cutoff", "beta"):
        if session.has_control(name) or smooth is not None:
            session.set_control(name, 0.0 if smooth is None else getattr(smooth, name))


def has_hulls(chain: Chain) -> bool:
    """Whether source and reference have keypoints, whose hulls can be compared."""
    return {"source_kp_value", REFERENCE + "kp_value"} <= chain.tensors().keys()


def fit_scale(session: Session) -> None:
    """Set the scale by the hulls of source and reference, which are both there."""
    source = session.read("source_kp_value")[0]
    reference = session.read(REFERENCE + "kp_value")[0]
    set_within(session, "scale", hull_scale(source, reference))


def set_within(session: Session, name: str, value: float) -> None:
    """Set what was measured, not asked for, as near as the range allows, if it is there."""
    if session.has_control(name):
        low, high = session.range_of(name)
        session.set_control(name, min(high, max(low, value)))
