"""The table's pictures: strips of all rows beside the truth (the paper's Figs. 4 and 5), and a plot
of every measure with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import PurePath

import cv2
import numpy as np

from ..evaluation.loop import Picture, spread
from ..evaluation.strips import as_tile, in_columns
from .page import digits_of
from .samples import Samples
from .section import Column, Section

_PAPER, _INK, _FAINT, _BAR = (255, 255, 255), (30, 30, 30), (200, 200, 200), (40, 110, 190)
_ROW, _TITLE, _AXIS = 26, 40, 34  # heights of a panel's parts
_NAME, _WIDE, _EDGE = 195, 320, 30  # its widths: names, the plot with its right edge, that edge
_ACROSS = 3
"""Panels beside each other."""
_LETTERS = 25
"""That fit above a tile, and beside a plot."""


def strip(title: str, samples: Mapping[str, Samples], task: str, cases: int) -> Picture | None:
    """Source, driving frame, truth and every row's prediction, a line for each frame: (H, W, 3);
    None where the rows have no frame in common.

    Args:
        samples: by row, of the same evaluation.
        task: in a reconstruction the driving frame is the truth.
    """
    places = {row: {name: i for i, name in enumerate(own.names)} for row, own in samples.items()}
    row, first = next(iter(samples.items()))
    common = [name for name in first.names if all(name in own for own in places.values())]
    case = {name: name.rpartition(" ")[0] for name in common}
    chosen = spread(list(dict.fromkeys(case.values())), cases)
    shown = [name for name in common if case[name] in chosen]
    if not shown:
        return None
    at = places[row]
    # A pair is called SOURCE__DRIVING.
    title_of = {name: _short(PurePath(case[name].partition("__")[0]).stem) for name in shown}
    columns = [
        [(title_of[name], as_tile(first.source[at[name]])) for name in shown],
        [(f"driving{name[len(case[name]) :]}", as_tile(first.driving[at[name]])) for name in shown],
    ]
    if task == "prediction":
        columns.append([("truth", as_tile(first.truth[at[name]])) for name in shown])
    for row, own in samples.items():
        pictures = (own.prediction[places[row][name]] for name in shown)
        columns.append([(_short(row), as_tile(picture)) for picture in pictures])
    return in_columns(f"{title} (first column: the source)", columns)


def plot(section: Section) -> Picture:
    """A panel for each measure, a line for each row: the mean as a dot, the interval as a bar, the
    seeds as ticks; (H, W, 3)."""
    panels = [_panel(section, column) for column in section.columns]
    across = min(_ACROSS, len(panels))
    panels += [np.full_like(panels[0], _PAPER)] * (-len(panels) % across)
    lines = [panels[i : i + across] for i in range(0, len(panels), across)]
    page = np.concatenate([np.concatenate(line, axis=1) for line in lines])
    head = np.full((_TITLE, *page.shape[1:]), _PAPER, np.uint8)
    _write(head, f"{section.name} (dot: mean, bar: 95% interval, ticks: seeds)", (8, 22))
    return np.concatenate([head, page])


def _panel(section: Section, column: Column) -> Picture:
    rows = list(section.figures)
    height, width = _TITLE + _ROW * len(rows) + _AXIS, _NAME + _WIDE
    page = np.full((height, width, 3), _PAPER, np.uint8)
    best = {True: "lower is better", False: "higher is better", None: "1 is best"}
    _write(page, f"{column.title} ({best[column.less_is_better]})", (8, 22))
    figures = [section.figures[row][column.key] for row in rows]
    every = [value for each in figures for value in (*each.value.values(), *each.seeds)]
    ends = [value for value in every if math.isfinite(value)]
    if not ends:
        _write(page, "not defined", (_NAME, _TITLE + _ROW // 2 + 5))
        return page
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room

    def at(value: float) -> int:
        return _NAME + round((value - low) / (high - low) * (_WIDE - _EDGE))

    for i, (row, figure) in enumerate(zip(rows, figures, strict=True)):
        y = _TITLE + _ROW * i + _ROW // 2
        _write(page, _short(row), (8, y + 5))
        cv2.line(page, (_NAME, y), (width - _EDGE, y), _FAINT, 1)
        mean, *bounds = (figure.value[name] for name in ("mean", "low", "high"))
        if all(map(math.isfinite, bounds)):
            cv2.line(page, (at(bounds[0]), y), (at(bounds[1]), y), _BAR, 3)
        for seed in filter(math.isfinite, figure.seeds):
            cv2.line(page, (at(seed), y - 6), (at(seed), y + 6), _INK, 1)
        if math.isfinite(mean):
            cv2.circle(page, (at(mean), y), 4, _BAR, -1, cv2.LINE_AA)
    for value in (low, high):
        text = f"{value:.{digits_of(column, value)}f}"
        wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0]
        cv2.line(page, (at(value), height - _AXIS), (at(value), height - _AXIS + 4), _INK, 1)
        _write(page, text, (at(value) - (wide // 2 if value == low else wide - 15), height - 14))
    return page


def _short(text: str) -> str:
    """A text that fits: of a long one the end, in which names of clips differ."""
    return text if len(text) <= _LETTERS else f"..{text[2 - _LETTERS :]}"


def _write(page: Picture, text: str, at: tuple[int, int]) -> None:
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, _INK, 1, cv2.LINE_AA)
