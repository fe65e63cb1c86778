"""The picture of a report: how often each arm got each rating, and means with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from .analysis import Record
from .study_folder import SCALE

Picture = NDArray[np.uint8]

_PAPER, _INK, _SOFT, _GRID = (250, 250, 250), (20, 20, 20), (110, 110, 110), (222, 222, 222)
_COLOURS = ((178, 58, 48), (232, 150, 100), (205, 205, 205), (120, 178, 214), (36, 100, 160))
"""Of the ratings, worst first; they differ in lightness too."""
_LIGHT = (2, 3, 4)  # ratings whose colour takes dark letters
_BARS, _MEANS = (190, 690), (770, 1160)  # left and right edge of the two panels
_WIDTH, _TOP, _ROW, _BOTTOM = 1200, 92, 58, 52
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_chart(record: Record) -> Picture:
    """The arms below each other, (H, W, 3) RGB: bars of shares at the left, means at the right."""
    arms: Mapping[str, Record] = record["arms"]
    bottom = _TOP + _ROW * len(arms)
    page = np.full((bottom + _BOTTOM, _WIDTH, 3), _PAPER, np.uint8)
    _write(page, "share of ratings", (_BARS[0], 34))
    _write(page, "mean with 95% interval", (_MEANS[0], 34))
    for place, level in enumerate(SCALE):
        x = _BARS[0] + 62 * place
        cv2.rectangle(page, (x, 54), (x + 16, 70), _COLOURS[place], -1)
        _write(page, str(level), (x + 23, 68), _SOFT)
        x = _along(level)
        cv2.line(page, (x, _TOP - 12), (x, bottom), _GRID, 1)
        _write(page, str(level), (x - 5, bottom + 20), _SOFT)
    _write(page, "1 worst, 5 best", (_MEANS[0], bottom + 42), _SOFT)
    for row, (arm, found) in enumerate(arms.items()):
        middle = _TOP + _ROW * row + _ROW // 2
        _write(page, arm if len(arm) <= 18 else arm[:16] + "..", (14, middle + 6))
        _bar(page, found["counts"], middle)
        _interval(page, found, middle)
    return page


def _bar(page: Picture, counts: list[int], middle: int) -> None:
    total = sum(counts)
    if not total:
        _write(page, "no ratings", (_BARS[0], middle + 6), _SOFT)
        return
    ends = _BARS[0] + np.cumsum([0, *counts]) / total * (_BARS[1] - _BARS[0])
    for level, count in zip(SCALE, counts, strict=True):
        left, right = (round(ends[level - 1 + side]) for side in (0, 1))
        if not count:
            continue
        colour = _COLOURS[level - 1]
        cv2.rectangle(page, (left, middle - 17), (right - 1, middle + 17), colour, -1)
        text = str(count)
        (width, height), _ = cv2.getTextSize(text, _FONT, 0.5, 1)
        if right - left > width + 4:
            at = (left + right - width) // 2, middle + height // 2
            _write(page, text, at, _INK if level in _LIGHT else _PAPER)


def _interval(page: Picture, found: Record, middle: int) -> None:
    if found["mean"] is None:
        return
    if found["low"] is not None:
        low, high = _along(found["low"]), _along(found["high"])
        cv2.line(page, (low, middle), (high, middle), _INK, 2)
        for end in (low, high):
            cv2.line(page, (end, middle - 7), (end, middle + 7), _INK, 2)
    cv2.circle(page, (_along(found["mean"]), middle), 6, _COLOURS[-1], -1, cv2.LINE_AA)
    _write(page, f"{found['mean']:.2f}", (_along(found["mean"]) - 16, middle - 13), _INK)


def _along(value: float) -> int:
    """Where a rating lies on the axis of means."""
    share = (value - SCALE[0]) / (SCALE[-1] - SCALE[0])
    return round(_MEANS[0] + share * (_MEANS[1] - _MEANS[0]))


def _write(
    page: Picture, text: str, at: tuple[int, int], colour: tuple[int, int, int] = _INK
) -> None:
    cv2.putText(page, text, at, _FONT, 0.5, colour, 1, cv2.LINE_AA)
