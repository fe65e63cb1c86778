"""A picture of latencies: for every time, how many frames take longer.

Both axes are logarithmic, so that the rare slow frames on the right, which a viewer notices, have
as much room as the many. Drawn with Pillow, at twice the size, since it draws no smooth lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from ..runtime.media.frames import Image

SIZE = 1200, 600  # width and height
_LEFT, _TOP, _EDGE, _BOTTOM = 90, 66, 24, 70  # around the plot and the names on its right
_TWICE = 2
_LETTERS = 40  # of a name; of a longer one the end, in which paths differ
_PAPER, _INK, _FAINT = (255, 255, 255), (30, 30, 30), (225, 225, 225)
_COLOURS = (
    (31, 95, 180), (214, 84, 20), (30, 140, 70), (190, 40, 110), (120, 80, 190), (140, 100, 30),
    (20, 150, 170), (90, 90, 90),
)  # fmt: skip
_ROOM = 1.15  # beyond the lowest and the highest time, as a factor


def latencies(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """The lines of a report of `measure_latency` or `compare`: milliseconds of every frame, by a
    name that says the rate and the drops."""
    from .report import label

    if "candidates" in report:
        return {
            each["name"]: [ms for block in each["samples_ms"] for ms in block]
            for each in report["candidates"]
        }
    found = {
        label(each): each["samples_ms"] for each in report["scenarios"] if "samples_ms" in each
    }
    for scenario in report.get("streams", {}).get("scenarios", ()):
        streams = scenario["streams"]
        name = f"{len(streams)} streams, {label(scenario)}"
        found[name] = [ms for each in streams for ms in each["samples_ms"]]
    return found


def draw(lines: Mapping[str, Sequence[float]], title: str) -> Image:
    """The curves of latencies in milliseconds, by name: uint8 (H, W, 3). Lines without a latency
    are left out; there must be one with some."""
    kept = {name: np.sort(np.asarray(ms)) for name, ms in lines.items() if len(ms)}
    low, high = (
        pick(pick(ms) for ms in kept.values()) * factor
        for pick, factor in ((min, 1 / _ROOM), (max, _ROOM))
    )
    fewest = min(1 / len(ms) for ms in kept.values())
    names = [name if len(name) <= _LETTERS else f"..{name[2 - _LETTERS :]}" for name in kept]
    frame = _Frame(float(low), float(high), fewest / 1.3, names)
    frame.axes(title)
    for i, ms in enumerate(kept.values()):
        frame.curve(ms, _COLOURS[i % len(_COLOURS)])
    small = frame.canvas.resize(SIZE, Pillow.Resampling.LANCZOS)
    return np.asarray(small, np.uint8).copy()


class _Frame:
    """The canvas, and where on it a time and a share are."""

    def __init__(self, low: float, high: float, fewest: float, names: Sequence[str]) -> None:
        self.low, self.high, self.fewest, self.names = low, high, fewest, names
        self.canvas = Pillow.new("RGB", (_TWICE * SIZE[0], _TWICE * SIZE[1]), _PAPER)
        self.pen = ImageDraw.Draw(self.canvas)
        self.font = ImageFont.load_default(15 * _TWICE)
        wide = max(self.pen.textlength(name, font=self.font) for name in names) / _TWICE
        self.right, self.bottom = SIZE[0] - wide - 48 - _EDGE, SIZE[1] - _BOTTOM

    def x(self, ms: float) -> float:
        share = math.log(ms / self.low) / math.log(self.high / self.low)
        return _LEFT + share * (self.right - _LEFT)

    def y(self, share: float) -> float:
        return _TOP + math.log(share) / math.log(self.fewest) * (self.bottom - _TOP)

    def line(self, points: Sequence[tuple[float, float]], colour: Any, width: float = 1) -> None:
        scaled = [(_TWICE * x, _TWICE * y) for x, y in points]
        self.pen.line(scaled, fill=colour, width=round(_TWICE * width), joint="curve")

    def text(self, at: tuple[float, float], text: str, anchor: str, colour: Any = _INK) -> None:
        place = _TWICE * at[0], _TWICE * at[1]
        self.pen.text(place, text, fill=colour, font=self.font, anchor=anchor)

    def axes(self, title: str) -> None:
        self.text((_EDGE, 16), title, "lm")
        self.text((_EDGE, 42), "frames that take at least so long", "lm")
        for ms in ticks(self.low, self.high):
            self.line([(self.x(ms), _TOP), (self.x(ms), self.bottom)], _FAINT)
            self.text((self.x(ms), self.bottom + 14), f"{ms:g}", "mm")
        share = 1.0
        while share >= self.fewest:
            self.line([(_LEFT, self.y(share)), (self.right, self.y(share))], _FAINT)
            self.text((_LEFT - 8, self.y(share)), f"{100 * share:g} %", "rm")
            share /= 10
        self.line([(_LEFT, _TOP), (_LEFT, self.bottom), (self.right, self.bottom)], _INK)
        self.text((self.right, self.bottom + 44), "milliseconds", "rm")
        for i, name in enumerate(self.names):  # beside the curves, which may be anywhere
            y = _TOP + 10 + 22 * i
            self.line([(self.right + 14, y), (self.right + 40, y)], _COLOURS[i % len(_COLOURS)], 3)
            self.text((self.right + 48, y), name, "lm")

    def curve(self, ms: Sequence[float], colour: Any) -> None:
        """Steps: at the i-th of N sorted times the share falls from (N - i) / N to one less."""
        points, count = [], len(ms)
        for i, value in enumerate(ms):
            after = (count - i - 1) / count
            at = self.x(float(value))
            points.append((at, self.y((count - i) / count)))
            points.append((at, self.y(after) if after else self.bottom))
        self.line(points, colour, 2)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high: 1, 2 and 5 times powers of ten, or finer steps where these
    would be fewer than five."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), [1 + i / 10 for i in range(90)]):
        found = [round(step * 10.0**power, 9) for power in powers for step in steps]
        kept = [value for value in found if low <= value <= high]
        if len(kept) >= 5:
            break
    return kept
