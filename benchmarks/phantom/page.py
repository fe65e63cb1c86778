"""The page about the phantom: which pictures, which tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.video import open_source
from ...training.phantom.generate import make_clip
from ...training.phantom.subject import Subject, landmark_pixels
from .physics import Check
from .pictures import arrows, grey_tile, page, plot, ringed, write_jpeg

Frames = NDArray[np.uint8]
COLUMNS = ("phantom pelvic", "phantom heart", "real pelvic", "real muscle", "real lung")
_SOURCE = "PFUS1, doi 10.5281/zenodo.10800787, CC BY 4.0"


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
    rows = [tiles[i : i + 4] for i in range(0, len(tiles), 4)]
    write_jpeg(path, page("twelve simulated subjects at rest, as they come", rows))


def beside_real(path: Path, stills: Sequence[tuple[str, Frames]], films: Sequence[Film]) -> None:
    """Real images, and below them as many simulated ones of the same size."""
    upper = [(f"real  {name}, PFUS1, CC BY 4.0", grey_tile(image, 256)) for name, image in stills]
    lower = [(f"synthetic  {f.subject.name}", f.tile(0, 256)) for f in films[: len(stills)]]
    title = f"above: real ({_SOURCE}); below: simulated, as they come"
    write_jpeg(path, page(title, [upper, lower]))


def valsalva(path: Path, film: Film) -> None:
    """Eight frames of a manoeuvre with landmarks, and how tissue came there."""
    numbers = np.linspace(0, len(film.frames) - 1, 8).round().astype(int)
    upper = [(f"synthetic  frame {n}", film.tile(n, 192, rings=True)) for n in numbers]
    lower = [
        (
            "from where it was at rest",
            arrows(film.frames[n], film.displacement[n], film.sector, 192),
        )
        for n in numbers
    ]
    title = f"a simulated Valsalva manoeuvre, {film.subject.name}; below: exact displacement"
    write_jpeg(path, page(title, [upper, lower]))


def hearts(path: Path, films: Sequence[Film]) -> None:
    """Each heart at the end of diastole, and in the frame in which its base is nearest the apex."""
    upper = [(f"synthetic  {f.subject.name}, at rest", f.tile(0, 256)) for f in films]
    lower = []
    for film in films:
        base = film.points[:, 1:, 1].mean(axis=1) - film.points[:, 0, 1]
        number = int(base.argmin())
        lower.append((f"synthetic  frame {number}", film.tile(number, 256, rings=True)))
    write_jpeg(path, page("four simulated hearts: end of diastole, contracted", [upper, lower]))


def figures(folder: Path, report: Any) -> None:
    """Histograms of the greys, and how the deviation of speckle hangs on the grey."""
    present = [name for name in COLUMNS if report.textures.get(name)]
    greys = [(name, np.mean(report.histograms[name], axis=0).tolist()) for name in present]
    left = plot("share of pixels by grey (0 to 1)", (np.arange(64) / 63).tolist(), greys, 0.16)
    deviations = [
        (name, [math.nan, *_means([t.deviation for t in report.textures[name]]), math.nan])
        for name in present
    ]
    x = (0.0, 0.15, 0.25, 0.35, 0.45, 0.5)
    right = plot("high-pass deviation by mean grey (0 to .5)", x, deviations, 0.1)
    write_jpeg(folder / "phantom-greys.jpg", np.concatenate([left, right], axis=1))


def tables(report: Any, facts: dict[str, Any]) -> str:
    """Everything below the mark."""
    parts = [
        "## Checks\n",
        _table(("quantity", "measured", "bound", ""), [_check(c) for c in report.checks]),
        "\n## Speckle beside that of real clips\n",
        _textures(report),
        "\n![greys](phantom-greys.jpg)\n",
        "## Time and disk\n",
        _speed(report.speed, facts["environment"]),
    ]
    parts += [f"\nNote: {note}.\n" for note in report.notes]
    return "\n".join(parts)


def _check(check: Check) -> tuple[str, str, str, str]:
    low, high = check.low, check.high
    if not np.isfinite([low, high]).any():
        return check.name, _number(check.measured), "none", ""
    bound = f"{low:g} to {high:g}" if np.isfinite(high) else f"at least {low:g}"
    if low == high:
        bound = f"{low:g}"
    return check.name, _number(check.measured), bound, "pass" if check.passed else "**FAIL**"


def _textures(report: Any) -> str:
    present = [name for name in COLUMNS if report.textures.get(name)]
    all_of = {name: report.textures[name] for name in present}
    rows: list[tuple[str, ...]] = [("clips", *(str(len(all_of[name])) for name in present))]
    for text, value in (
        ("high-pass deviation at mean grey .1-.2", lambda t: t.deviation[0]),
        ("at .2-.3", lambda t: t.deviation[1]),
        ("at .3-.4", lambda t: t.deviation[2]),
        ("at .4-.5", lambda t: t.deviation[3]),
        ("width of a speckle along the beam, px", lambda t: t.along),
        ("width across, px", lambda t: t.across),
        ("high-pass correlation of neighbouring frames", lambda t: t.neighbours),
        ("grey: 10th percentile", lambda t: t.greys[0]),
        ("median", lambda t: t.greys[1]),
        ("90th percentile", lambda t: t.greys[2]),
        ("99th percentile", lambda t: t.greys[3]),
        ("black (below .02) inside of the sector", lambda t: t.black),
    ):
        cells = []
        for name in present:
            values = np.array([value(t) for t in all_of[name]], float)
            values = values[np.isfinite(values)]
            if not len(values):
                cells.append("-")
            elif len(values) == 1:
                cells.append(_number(float(values[0])))
            else:
                low, high = (_number(float(v)) for v in (values.min(), values.max()))
                cells.append(f"{_number(float(values.mean()))} ({low} to {high})")
        rows.append((text, *cells))
    return _table(("mean over clips (least to most)", *present), rows)


def _speed(speed: dict[str, dict[str, float]], machine: dict[str, Any]) -> str:
    rows = [
        (
            anatomy,
            str(facts["frames"]),
            _number(facts["cpu_seconds"]),
            _number(facts["frames_per_cpu_second"]),
            _number(facts["mb_mkv"]),
            _number(facts["mb_npz"]),
        )
        for anatomy, facts in speed.items()
    ]
    head = (
        "anatomy",
        "frames",
        "s of a core",
        "frames / s of a core",
        "MB video",
        "MB displacement",
    )
    load = ", ".join(f"{value:g}" for value in machine["load_average"])
    below = (
        "One clip each, files written, painting the tissue included; process time of one thread. "
        f"{machine['cpu']}, load {load}.\n"
    )
    return f"{_table(head, rows)}\n{below}"


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    values = np.array(rows, float)
    known = np.isfinite(values)
    sums = np.where(known, values, 0).sum(axis=0)
    return [float(s / n) if n else math.nan for s, n in zip(sums, known.sum(axis=0), strict=True)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
