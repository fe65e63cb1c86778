"""Curves as inline SVG: raw values thin, smoothed ones on top, readable axes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

WIDTH, HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_MOST = 240  # points of a curve that are drawn: about one a pixel
_LOG_FROM = 5  # times between the least and the largest smoothed value
_SPAN = 25  # a smoothed value is the mean of one 25th of the curve


class Series(NamedTuple):
    """A curve. `colour`: a CSS colour."""

    label: str
    steps: Values
    values: Values
    colour: str = "var(--c0)"
    dashed: bool = False


def chart(
    title: str,
    series: Sequence[Series],
    note: str = "",
    marks: Mapping[str, float] | None = None,
    smooth: bool = True,
    logarithmic: bool = True,
) -> str:
    """A figure with its title, a legend if there are several curves, and the drawing; "" where no
    curve has a point.

    Args:
        marks: horizontal lines by what they mean; drawn if they lie near the curves.
        smooth: whether values are noisy. The axis fits the smoothed ones, and most raw ones.
        logarithmic: whether the axis may be, where values differ much.
    """
    series = [each for each in series if len(each.steps)]
    if not series:
        return ""
    calm = [_smoothed(each.values) if smooth else each.values for each in series]
    low, high, log = _range(calm, [each.values for each in series], logarithmic)
    marks = {
        name: value
        for name, value in (marks or {}).items()
        if low - (high - low) <= value <= high + (high - low) and (value > 0 or not log)
    }
    if marks:
        room = 0 if log else 0.08 * (high - low)
        low, high = min(low, *marks.values()), max(high, *(m + room for m in marks.values()))
    last = max(each.steps[-1] for each in series)
    start = min(0.0, *(each.steps[0] for each in series))
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def across(steps: Values) -> Values:
        return _LEFT + (steps - start) / max(last - start, 1) * wide

    def down(values: Values) -> Values:
        scale = np.log10 if log else np.asarray
        ends = scale(np.array([low, high]))
        share = (scale(np.clip(values, low, high)) - ends[0]) / (ends[1] - ends[0])
        return HEIGHT - _BOTTOM - share * tall

    parts = []
    for tick in _log_ticks(low, high) if log else _ticks(low, high, 5):
        y = down(np.array([tick]))[0]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 3.5:.1f}" class="y">{number(tick)}</text>')
    for tick in _ticks(start, last, 6):
        x = across(np.array([tick]))[0]
        parts.append(f'<path class="tick" d="M{x:.1f} {HEIGHT - _BOTTOM}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" class="x">{number(tick)}</text>')
    for each, values in zip(series, calm, strict=True):
        if smooth:
            places = _ends(each.values)
            parts.append(_path("raw", each, across(each.steps[places]), down(each.values[places])))
        places = spaced(len(values))
        parts.append(_path("line", each, across(each.steps[places]), down(values[places])))
    for name, value in marks.items():
        y = down(np.array([value]))[0]
        parts.append(f'<path class="mark" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>')
        clear = y + 11 if calm[0][-1] > value else y - 4  # of the end of the curve
        parts.append(f'<text x="{WIDTH - _RIGHT}" y="{clear:.1f}" class="m">{escape(name)}</text>')
    said = ", ".join(filter(None, (note, "log scale" if log else "")))
    return (
        f'<figure class="chart" data-chart="{escape(_data(series, calm, start, last))}">'
        f"<figcaption><b>{escape(title)}</b> <i>{escape(said)}</i>"
        f"<span>{_legend(title, series)}</span></figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}<path class="axis" d="M{_LEFT} {_TOP}V{HEIGHT - _BOTTOM}'
        f'H{WIDTH - _RIGHT}"/><path class="cursor" d=""/></svg></figure>'
    )


def number(value: float) -> str:
    """Short: 12k, 0.03, 2e-5."""
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    text = f"{value:.3g}" if size < 1000 else f"{value:.0f}"
    return text.replace("e-0", "e-")


def _legend(title: str, series: Sequence[Series]) -> str:
    """Each curve's mark and name; a single one has the chart's own. The page adds values."""
    if [each.label for each in series] == [title]:
        return "<em><output></output></em>"
    return "".join(
        f'<em style="--c:{each.colour}" class="curve{" dashed" if each.dashed else ""}">'
        f"{escape(each.label)}<output></output></em>"
        for each in series
    )


def _path(kind: str, series: Series, x: Values, y: Values) -> str:
    points = "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    dashed = " dashed" if series.dashed else ""
    dot = "h.01" if len(x) == 1 else ""
    return f'<path class="{kind}{dashed}" style="--c:{series.colour}" d="M{points}{dot}"/>'


def _data(series: Sequence[Series], calm: Sequence[Values], start: float, last: float) -> str:
    """What the page reads values from, where the pointer is."""
    curves = []
    for each, values in zip(series, calm, strict=True):
        places = spaced(len(values))
        shown = [number(value) for value in values[places]]
        curves.append({"x": each.steps[places].astype(int).tolist(), "y": shown})
    area = [_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM]
    return json.dumps({"steps": [start, last], "area": area, "curves": curves})


def _smoothed(values: Values) -> Values:
    """A moving mean over one `_SPAN`-th of the curve; it does not lag behind."""
    reach = len(values) // (2 * _SPAN)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    first, last = np.maximum(at - reach, 0), np.minimum(at + reach, len(values) - 1)
    return np.asarray((sums[last + 1] - sums[first]) / (last + 1 - first))


def _range(
    calm: Sequence[Values], raw: Sequence[Values], logarithmic: bool
) -> tuple[float, float, bool]:
    """Least and largest value of the axis, and whether it is logarithmic."""
    every = np.concatenate([*calm])
    low, high = float(every.min()), float(every.max())
    log = logarithmic and low > 0 and high / low >= _LOG_FROM
    spread = np.concatenate([*raw])
    if log:
        spread = spread[spread > 0]
    around = np.percentile(spread, [2, 98])  # a raw value may lie far out, once
    low, high = min(low, float(around[0])), max(high, float(around[1]))
    if log:
        return low / 1.1, high * 1.1, True
    room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    floor = low >= 0 and low - room < 0.35 * (high - low)  # near 0: show 0
    return (0.0 if floor else low - room), high + room, False


def _ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from `low` to `high`."""
    rough = max(high - low, 1e-12) / about
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten; with 2 and 5 times them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    times = (1, 2, 5) if len(decades) <= 4 else (1,)
    every = [n * 10.0**decade for decade in decades for n in times]
    return [tick for tick in every if low <= tick <= high]


def spaced(count: int, most: int = _MOST) -> NDArray[np.intp]:
    """At most so many of `count` places, evenly spaced, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def _ends(values: Values) -> NDArray[np.intp]:
    """Places of the least and the largest value of each of `_MOST` parts: what one would see."""
    if len(values) <= 2 * _MOST:
        return np.arange(len(values))
    parts = np.array_split(np.arange(len(values)), _MOST)
    found = [part[[values[part].argmin(), values[part].argmax()]] for part in parts]
    return np.unique(np.concatenate(found))
