"""What a running stream can be asked to do, in a line of text: by a key, a program or the page."""

from __future__ import annotations

import math
from typing import NamedTuple

from ..options import SHARES
from ..support.dataclass_parser import nearest
from ..support.errors import ConfigError

#: What each order takes after its name, for people.
ORDERS = {
    "source": "NAME, or newest: take another source picture, or a live source's newest frame",
    "reference": "take the next driving frame as the reference",
    "pause": "hold the picture",
    "resume": "go on after a pause",
    "scale": "S: make motion S times as large, above 0 and at most 10",
    "shading": "off, low or full: how much of the driving frames' change in brightness to use",
    "stop": "end the stream, and finish its files",
}


class Order(NamedTuple):
    """An order, and what it takes."""

    name: str
    value: str


def parse_order(text: str) -> Order:
    """Read an order.

    Raises:
        ConfigError: there is no such order, or what it takes is missing or wrong.
    """
    name, _, value = text.strip().partition(" ")
    value = value.strip()
    if name not in ORDERS:
        close = nearest(name, ORDERS)
        hint = f"did you mean {close!r}?" if close else f"orders are {', '.join(ORDERS)}"
        raise ConfigError(f"there is no order {name[:40]!r}", hint)
    takes = ORDERS[name].split(":")[0] if ":" in ORDERS[name] else ""
    if bool(value) != bool(takes):
        what = f"the order {name} takes {takes or 'nothing after it'}"
        raise ConfigError(what, f"write {name} {takes}".strip())
    if name == "scale" and not 0 < _number(value) <= 10:
        raise ConfigError(f"scale is {value!r}", "give a number above 0 and at most 10")
    if name == "shading" and value not in SHARES:
        raise ConfigError(f"unknown shading {value!r}", ", ".join(SHARES))
    return Order(name, value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
