"""How much of the driving clip's change of light the picture takes on."""

from __future__ import annotations

from typing import Literal, get_args

from .session import Session
from .support.errors import ConfigError

Shading = Literal["off", "low", "full"]

SHARES: dict[Shading, float] = {"off": 0.0, "low": 0.5, "full": 1.0}


def set_shading(session: Session, shading: Shading) -> None:
    """Set the control `shade`; `full` is also what a model without one does.

    Raises:
        ConfigError: an unknown shading, or the model has no such control.
    """
    if shading not in SHARES:
        raise ConfigError(f"unknown shading {shading!r}", ", ".join(get_args(Shading)))
    if session.has_control("shade"):
        session.set_control("shade", SHARES[shading])
    elif shading != "full":
        raise ConfigError(
            f"this model cannot lessen its shading: {shading!r} has no effect",
            "leave shading out; it is for models that move by displacements",
        )
