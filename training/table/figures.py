"""The table's pictures: strips of all rows beside the truth (the paper's Figs. 4 and 5), and a plot
of every measure with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ..evaluation.loop import Picture, spread
from ..evaluation.strips import as_tile, in_columns
from .page import Column, Figure, Section
from .samples import SHOWN, Samples

_PAPER, _INK, _FAINT, _BAR = (255, 255, 255), (30, 30, 30), (200, 200, 200), (40, 110, 190)
_ROW, _NAME, _WIDE, _TITLE = 26, 130, 300, 40


def strip(title: str, samples: Mapping[str, Samples], task: str, cases: int) -> Picture:
    """Source, driving frame, truth and every row's prediction, a line for each frame: (H, W, 3).

    Args:
        samples: by row, of the same evaluation.
        task: in a reconstruction the driving frame is the truth.
    """
    first = next(iter(samples.values()))
    starts = spread(range(0, len(first.names), SHOWN), cases)
    shown = [i for start in starts for i in range(start, start + SHOWN)]
    columns = [
        [("source", as_tile(first.source[i])) for i in shown],
        [(f"driving: {first.names[i]}", as_tile(first.driving[i])) for i in shown],
    ]
    if task == "prediction":
        columns.append([("truth", as_tile(first.truth[i])) for i in shown])
    columns += [[(row, as_tile(own.prediction[i])) for i in shown] for row, own in samples.items()]
    return in_columns(title, columns)


def plot(section: Section) -> Picture:
    """A panel for each measure, a line for each row: the mean as a dot, the interval as a bar, the
    seeds as ticks; (H, W, 3)."""
    panels = [_panel(section, column) for column in section.columns]
    return np.concatenate(panels, axis=1)


def _panel(section: Section, column: Column) -> Picture:
    rows = list(section.figures)
    height, width = _TITLE + _ROW * (len(rows) + 1), _NAME + _WIDE
    page = np.full((height, width, 3), _PAPER, np.uint8)
    best = {True: "less is better", False: "more is better", None: "1 is best"}
    _write(page, f"{column.title} ({best[column.less_is_better]})", (4, 18), _INK)
    figures = [section.figures[row][column.key] for row in rows]
    ends = [value for each in figures for value in _ends(each)]
    if not ends:
        return page
    low, high = min(ends), max(ends)
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - room, high + room

    def at(value: float) -> int:
        return _NAME + round((value - low) / (high - low) * (_WIDE - 20))

    for i, (row, figure) in enumerate(zip(rows, figures, strict=True)):
        y = _TITLE + _ROW * i + _ROW // 2
        _write(page, row, (4, y + 5), _INK)
        cv2.line(page, (_NAME, y), (width - 20, y), _FAINT, 1)
        mean, *bounds = (figure.value[name] for name in ("mean", "low", "high"))
        if all(map(math.isfinite, bounds)):
            cv2.line(page, (at(bounds[0]), y), (at(bounds[1]), y), _BAR, 3)
        for seed in filter(math.isfinite, figure.seeds):
            cv2.line(page, (at(seed), y - 6), (at(seed), y + 6), _INK, 1)
        if math.isfinite(mean):
            cv2.circle(page, (at(mean), y), 4, _BAR, -1, cv2.LINE_AA)
    for value, x in ((low, _NAME), (high, width - 70)):
        _write(page, f"{value:.{column.digits}f}", (x, height - 8), _INK)
    return page


def _ends(figure: Figure) -> Sequence[float]:
    values = [*figure.value.values(), *figure.seeds]
    return [value for value in values if math.isfinite(value)]


def _write(page: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    cv2.putText(page, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
