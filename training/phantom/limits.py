"""Between which values a parameter may lie: for parameters that somebody typed."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

Limits = Mapping[str, tuple[float, float]]
"""Lowest and highest value of a parameter by its name; ``manoeuvre.start`` is one of a part's, and
each value of a tuple is held to the limits."""


def beyond(parameters: Any, limits: Limits, part: str = "") -> str | None:
    """What is wrong with the first parameter outside of its limits; None where all are within.

    Args:
        part: of the subject that the parameters are, for the sentence, such as "probe".
    """
    for name, (low, high) in limits.items():
        value = attrgetter(name)(parameters)
        for number in value if isinstance(value, tuple) else (value,):
            if not low <= number <= high:
                shown = f"{part}.{name}" if part else name
                return f"{shown} is {number:g}: it must be from {low:g} to {high:g}"
    return None
