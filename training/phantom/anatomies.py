"""The anatomies that `sonomime phantom` can render."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import heart_subjects, pelvic_subjects
from .body import Body
from .heart import Heart
from .heart_shape import HeartParameters
from .pelvic import Pelvic
from .pelvic_shape import PelvicParameters


class Anatomy(NamedTuple):
    """A kind of body.

    Attributes:
        parameters: a frozen dataclass with everything about a subject.
        draw: draws the parameters of a random subject.
        body: makes the subject with these parameters.
        unfit: says what is wrong with user-edited parameters that are each in range, or None. It
            runs before ``body``, so it must check whatever ``body`` divides by.
    """

    parameters: type[Any]
    draw: Callable[[np.random.Generator], Any]
    body: Callable[[Any], Body]
    unfit: Callable[[Any], str | None] = lambda parameters: None


ANATOMIES = {
    "pelvic": Anatomy(PelvicParameters, pelvic_subjects.draw, Pelvic, pelvic_subjects.unfit),
    "heart": Anatomy(HeartParameters, heart_subjects.draw, Heart, heart_subjects.unfit),
}
