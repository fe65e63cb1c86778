"""Range checks for user-edited parameters.

A dataclass states a field's range in its annotation, as in ``Annotated[float, Range(10, 300)]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, get_type_hints


@dataclass(frozen=True)
class Range:
    """Every number of a field is from ``low`` to ``high``."""

    low: float
    high: float


class Placed:
    """A field is a place before the probe."""


Point = Annotated[tuple[float, float], Placed()]
"""x and z in mm, from the middle of the probe's face."""
Seed = Annotated[int, Range(0, 2**32 - 1)]


def out_of_range(parameters: Any) -> str | None:
    """What is wrong with the first value that its annotation forbids; None if all are allowed.

    Args:
        parameters: a dataclass with a ``probe``; dataclasses in it are checked too.
    """
    return next(_problems(parameters, parameters.probe, ""), None)


def _problems(part: Any, probe: Any, above: str) -> Iterator[str]:
    hints = get_type_hints(type(part), include_extras=True)
    for field in fields(part):
        value, name = getattr(part, field.name), above + field.name
        if is_dataclass(value):
            yield from _problems(value, probe, f"{name}.")
        for rule in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(rule, Range):
                for number in value if isinstance(value, tuple) else (value,):
                    if not rule.low <= number <= rule.high:
                        shown = f"{number:g}" if isinstance(number, float) else str(number)[:40]
                        yield f"{name} is {shown}: it must be from {rule.low:g} to {rule.high:.10g}"
            elif isinstance(rule, Placed):
                x, z = value
                if not 0 < z < probe.depth:
                    yield f"{name} is at depth {z:g} mm: it must be above 0 and below probe.depth"
                if abs(x) > probe.width:
                    yield f"{name} is {x:g} mm beside the middle: far outside of the sector"
