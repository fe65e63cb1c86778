"""Pictures of a report, embedded: training pictures over the steps, and the tracks of points."""

from __future__ import annotations

import base64
import colorsys
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..logbook import CAPTION
from .charts import Series, chart, spaced
from .records import Line, Run

Picture = NDArray[np.uint8]

MOST_PICTURES = 24
_WIDE = 1400  # pixels of an embedded picture
_QUALITY = 82
_TRAIL = 60  # places of a track
_SIDE = 256  # of a cell that tracks are drawn on


def film(run: Run) -> str:
    """The training pictures with a slider; the last is shown, others when the slider moves."""
    frames = []
    for step, path in (run.pictures[i] for i in spaced(len(run.pictures), MOST_PICTURES)):
        picture = cv2.imread(str(path))
        if picture is None:  # just being removed, or damaged
            continue
        if picture.shape[1] > _WIDE:
            size = _WIDE, round(picture.shape[0] * _WIDE / picture.shape[1])
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        frames.append((step, _embedded(picture)))
    if not frames:
        return ""
    images = "".join(
        f'<img alt="step {step}" data-step="{step}" src="{data}"'
        f"{'' if i == len(frames) - 1 else ' hidden'}>"
        for i, (step, data) in enumerate(frames)
    )
    last = len(frames) - 1
    return (
        f'<div class="film"><div class="bar"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="step">'
        f"<output>step {frames[-1][0]}</output></div>{images}</div>"
    )


def tracks(run: Run) -> str:
    """Where each point lies in the probe's first pairs, from the first look to the last."""
    points = [line for line in run.probes if _is_points(line.get("points"))]
    if len(points) < 2 or not run.pictures or not any(points[-1]["points"].values()):
        return ""
    last = cv2.imread(str(run.pictures[-1][1]))
    side = run.setting("model.image_size")
    if last is None or not isinstance(side, int):
        return ""
    shown = [points[i] for i in spaced(len(points), _TRAIL)]
    columns, names = list(points[-1]["points"]), _point_names(run)
    figures = []
    for pair in range(len(points[-1]["points"][columns[0]])):
        for column, name in enumerate(columns):  # they are a picture's first columns
            top, left = CAPTION + pair * side, column * side
            cell = last[top : top + side, left : left + side]
            if cell.shape[:2] == (side, side):
                title = f"pair {pair + 1}, {name}"
                trail = [_places(line, name, pair) for line in shown]
                figures.append(_track(title, cell, trail, names))
    drawn = "".join(figures)
    curves = "".join(_coordinate(points, axis, names) for axis in (0, 1))
    return f'<div class="tracks">{drawn}</div><div class="charts">{curves}</div>'


def _point_names(run: Run) -> dict[int, str]:
    """Of the points that learn from labels, which come last."""
    first, labels = run.setting("model.keypoints.self_supervised"), run.facts.get("labels")
    if run.setting("model.family") != "keypoints" or not isinstance(first, int):
        return {}
    return dict(enumerate(map(str, labels or ()), first))


def _track(
    title: str, cell: Picture, trail: Sequence[Sequence[Any]], names: Mapping[int, str]
) -> str:
    """A cell of the last picture, and on it each point's way."""
    scale = _SIDE / cell.shape[0]
    image = cv2.resize(cell, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    count = max(map(len, trail))
    parts = []
    for k in range(count):
        there = [each[k] for each in trail if k < len(each) and each[k] is not None]
        if not there:
            continue
        places = [f"{(x + 0.5) * scale:.1f} {(y + 0.5) * scale:.1f}" for x, y in there]
        x, y = ((value + 0.5) * scale for value in there[-1])
        colour = hue(k, count)
        parts.append(f'<path d="M{"L".join(places)}" stroke="{colour}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        name = names.get(k, str(k))
        near = x > _SIDE - 12 - 6 * len(name)
        side = f'x="{x - 6:.1f}" text-anchor="end"' if near else f'x="{x + 6:.1f}"'
        parts.append(f'<text {side} y="{y + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_SIDE} {_SIDE}"><image href="{_embedded(image)}" '
        f'width="{_SIDE}" height="{_SIDE}"/>{"".join(parts)}</svg></figure>'
    )


def _coordinate(lines: Sequence[Line], axis: int, names: Mapping[int, str]) -> str:
    """x or y of each point in the first pair's first image, over the steps."""
    name = next(iter(lines[-1]["points"]))
    count = max(len(_places(line, name, 0)) for line in lines)
    series = []
    for k in range(count):
        lines_k = ((line["step"], _places(line, name, 0)[k : k + 1]) for line in lines)
        found = [(step, here[0][axis]) for step, here in lines_k if here and here[0] is not None]
        steps, values = np.array(found, np.float64).reshape(-1, 2).T
        series.append(Series(names.get(k, str(k)), steps, values, hue(k, count)))
    title = f"{'xy'[axis]} in pair 1, {name}"
    return chart(title, series, "pixels of the frame", smooth=False)


def _places(line: Line, name: str, pair: int) -> list[Any]:
    images = line["points"].get(name, ())
    return list(images[pair]) if pair < len(images) else []


def _is_points(points: Any) -> bool:
    """Whether it is what training/probe.py records, with at least one image."""
    return isinstance(points, dict) and any(points.values())


def hue(k: int, count: int) -> str:
    """The colour of a point, as in the training picture."""
    red, green, blue = colorsys.hsv_to_rgb(k * 179 // count / 180, 220 / 255, 1.0)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _embedded(picture: Picture) -> str:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
