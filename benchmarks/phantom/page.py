"""The page about the phantom: which pictures, which tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.video import open_source
from ...training.evaluation.metrics import finite_mean
from ...training.evaluation.strips import in_columns
from ...training.evaluation.tables import grid
from ...training.phantom.generate import make_clip
from ...training.phantom.subject import Subject, landmark_pixels
from .clips import Report
from .physics import Check
from .pictures import arrows, grey_tile, plot, ringed, write_jpeg

Frames = NDArray[np.uint8]
COLUMNS = ("phantom pelvic", "phantom heart", "real pelvic", "real muscle", "real lung")
_SOURCE = "PFUS1, doi 10.5281/zenodo.10800787, CC BY 4.0"
_TEXTURE = (
    "high-pass deviation at mean grey .1-.2",
    "at .2-.3",
    "at .3-.4",
    "at .4-.5",
    "width of a speckle along the beam, px",
    "width across, px",
    "high-pass correlation of neighbouring frames",
    "grey: 10th percentile",
    "median",
    "90th percentile",
    "99th percentile",
    "black (below .02) inside of the sector",
)
"""The numbers of a Texture, in their order."""
_SPEED = {
    "frames": "frames",
    "cpu_seconds": "s of a core",
    "frames_per_cpu_second": "frames / s of a core",
    "mb_mkv": "MB video",
    "mb_npz": "MB displacement",
}


@dataclass(frozen=True)
class Film:
    """A clip as `sonomime phantom` writes it.

    Attributes:
        frames: (T, H, W); displacement: (T, H, W, 2); sector: (H, W); points: (T, P, 2) pixels.
    """

    subject: Subject
    frames: Frames
    displacement: NDArray[np.float32]
    sector: NDArray[np.bool_]
    points: NDArray[np.float32]

    @classmethod
    def make(cls, folder: Path, subject: Subject, frames: int) -> Film:
        make_clip(folder, subject, frames)
        with open_source(folder / "clips" / f"{subject.name}.mkv") as source:
            pictures = np.stack([frame.image for frame in source])
        with np.load(folder / "displacement" / f"{subject.name}.npz") as arrays:
            displacement, sector = arrays["displacement"], arrays["sector"]
        points = landmark_pixels(subject.body, subject.body.states(frames))
        return cls(subject, pictures, displacement, sector, points)

    def tile(self, frame: int, side: int, rings: bool = False) -> Frames:
        tile = grey_tile(self.frames[frame], side)
        return ringed(tile, self.points[frame], self.frames.shape[1]) if rings else tile


def rest_sheet(path: Path, films: Sequence[Film]) -> None:
    """4 x 3 subjects at rest, the landmarks on every other one."""
    tiles = [
        (f"synthetic  {film.subject.name}", film.tile(0, 224, rings=i % 2 == 1))
        for i, film in enumerate(films)
    ]
    title = "twelve simulated subjects at rest, as they come"
    write_jpeg(path, in_columns(title, [tiles[i::4] for i in range(4)]))


def beside_real(path: Path, stills: Sequence[tuple[str, Frames]], films: Sequence[Film]) -> None:
    """Real images, and below them as many simulated ones of the same size."""
    columns = [
        [
            (f"real  {name}, PFUS1, CC BY 4.0", grey_tile(image, 256)),
            (f"synthetic  {film.subject.name}", film.tile(0, 256)),
        ]
        for (name, image), film in zip(stills, films, strict=False)
    ]
    title = f"above: real ({_SOURCE}); below: simulated, as they come"
    write_jpeg(path, in_columns(title, columns))


def valsalva(path: Path, film: Film) -> None:
    """Eight frames of a manoeuvre with landmarks, and how tissue came there."""
    columns = []
    for n in np.linspace(0, len(film.frames) - 1, 8).round().astype(int):
        moved = arrows(film.frames[n], film.displacement[n], film.sector, 192)
        shown = (f"synthetic  frame {n}", film.tile(n, 192, rings=True))
        columns.append([shown, ("from where it was at rest", moved)])
    title = f"a simulated Valsalva manoeuvre, {film.subject.name}; below: exact displacement"
    write_jpeg(path, in_columns(title, columns))


def hearts(path: Path, films: Sequence[Film]) -> None:
    """Each heart at the end of diastole, and in the frame in which its base is nearest the apex."""
    columns = []
    for film in films:
        base = film.points[:, 1:, 1].mean(axis=1) - film.points[:, 0, 1]
        n = int(base.argmin())
        rest = (f"synthetic  {film.subject.name}, at rest", film.tile(0, 256))
        columns.append([rest, (f"synthetic  frame {n}", film.tile(n, 256, rings=True))])
    title = "four simulated hearts: end of diastole, contracted"
    write_jpeg(path, in_columns(title, columns))


def figures(folder: Path, report: Report) -> None:
    """Histograms of the greys, and how the deviation of speckle hangs on the grey."""
    greys, deviations = [], []
    for name in _present(report):
        greys.append((name, np.mean(report.histograms[name], axis=0).tolist()))
        bins = zip(*(texture.deviation for texture in report.textures[name]), strict=True)
        deviations.append((name, [math.nan, *map(finite_mean, bins), math.nan]))
    left = plot("share of pixels by grey (0 to 1)", (np.arange(64) / 63).tolist(), greys, 0.16)
    x = (0.0, 0.15, 0.25, 0.35, 0.45, 0.5)
    right = plot("high-pass deviation by mean grey (0 to .5)", x, deviations, 0.1)
    write_jpeg(folder / "phantom-greys.jpg", np.concatenate([left, right], axis=1))


def tables(report: Report, machine: dict[str, Any]) -> str:
    """Everything below the mark. `machine`: the environment that it was measured in."""
    load = ", ".join(f"{value:g}" for value in machine["load_average"])
    parts = [
        "## Checks",
        grid(("quantity", "measured", "bound", ""), [_check(c) for c in report.checks]),
        "## Speckle beside that of real clips",
        _textures(report),
        "![greys](phantom-greys.jpg)",
        "## Time and disk",
        grid(
            ("anatomy", *_SPEED.values()),
            [(name, *(_number(facts[k]) for k in _SPEED)) for name, facts in report.speed.items()],
        ),
        "One clip each, files written, painting the tissue included; process time of one thread. "
        f"{machine['cpu']}, load {load}.",
    ]
    return "\n\n".join([*parts, *(f"Note: {note}." for note in report.notes)]) + "\n"


def _check(check: Check) -> tuple[str, str, str, str]:
    low, high = check.low, check.high
    if not np.isfinite([low, high]).any():
        return check.name, _number(check.measured), "none", ""
    bound = f"{low:g} to {high:g}" if np.isfinite(high) else f"at least {low:g}"
    if low == high:
        bound = f"{low:g}"
    return check.name, _number(check.measured), bound, "pass" if check.passed else "**FAIL**"


def _present(report: Report) -> list[str]:
    return [name for name in COLUMNS if name in report.textures]


def _textures(report: Report) -> str:
    head, clips = ["mean over clips (least to most)"], ["clips"]
    columns: list[tuple[str, ...]] = [_TEXTURE]
    for name in _present(report):
        values = np.array([np.hstack(astuple(texture)) for texture in report.textures[name]])
        head.append(name)
        clips.append(str(len(values)))
        columns.append(tuple(map(_spread, values.T)))
    return grid(head, [clips, *zip(*columns, strict=True)])


def _spread(values: NDArray[np.float64]) -> str:
    """Mean, least and most of those that are finite."""
    known = values[np.isfinite(values)]
    if not len(known):
        return "-"
    mean, low, high = map(_number, (known.mean(), known.min(), known.max()))
    return f"{mean} ({low} to {high})" if len(known) > 1 else mean


def _number(value: float) -> str:
    if value == 0 or isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
