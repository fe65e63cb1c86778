"""Make the phantom's page: its pictures, and its speckle beside that of real clips.

    python -m sonomime.training.phantom.page -o docs/results --real DIR --stills DIR

Writes phantom.json, phantom-*.jpg and phantom.md into the folder. Text of an existing phantom.md
above the line `<!-- measured -->` is kept. --real is a dataset folder, --stills a folder of images;
without them their columns are left out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ....runtime.media.frames import letterbox, to_channels
from ....runtime.readers.stills import read_image
from ....runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ....runtime.support.progress import progress
from ...data.clip_frames import load_clip
from ...data.dataset import find_clips
from ...evaluation.metrics import blur, clip_mask, finite_mean, high_pass, ncc, to_float
from ...evaluation.report import json_text
from ...evaluation.strips import Tile, as_tile, in_columns
from ...markdown import grid
from ..render import Shot, film
from ..subject import Subject, draw_subject

Frames = NDArray[np.uint8]
Textures = dict[str, list[dict[str, float]]]
"""Statistics of each clip, by column of the table."""

SEED, FRAMES = 2026, 60
_MARK = "<!-- measured -->"
_GROUPS = ("muscle", "lung")
_PLACES = (8, 22, 36, 50)  # frames of a phantom's clip that are measured, each with the one before
_RUNS = 8  # of two neighbouring frames, from each real clip
_COLOURS = (255, 190, 0), (0, 220, 255), (120, 255, 120)
_BINS = (0.1, 0.2, 0.3, 0.4, 0.5)
_FEWEST = 500  # pixels in a bin
_LAGS = 24  # pixels
_INSIDE = 6  # pixels from the sector's border


def main() -> None:
    """Render, measure, draw and write."""
    parser = argparse.ArgumentParser(
        "python -m sonomime.training.phantom.page", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--real", type=Path, metavar="DIR", help="dataset folder of real clips")
    parser.add_argument("--stills", type=Path, metavar="DIR", help="folder of real pelvic images")
    args = parser.parse_args()
    stills = {
        path.stem: letterbox(to_channels(read_image(path), 1), 256)[0]
        for path in (sorted(args.stills.glob("*.png")) if args.stills else ())
        if not path.stem.endswith("_gt")  # masks of organs
    }
    pelvic = [draw_subject("pelvic", SEED, number) for number in range(12)]
    hearts = [draw_subject("heart", SEED, number) for number in range(4)]
    pictures(args.output, pelvic, hearts, stills)
    found: Textures = {}
    for column, subjects in (("phantom pelvic", pelvic[:4]), ("phantom heart", hearts)):
        found[column] = [texture(runs(s)) for s in progress(subjects, label=column)]
    found["real pelvic"] = [texture([image[None]]) for image in stills.values()]
    clips = find_clips([args.real]).clips if args.real else []
    found |= {f"real {group}": [] for group in _GROUPS}
    for clip in progress([clip for clip in clips if clip.group in _GROUPS], label="real clips"):
        frames = load_clip(clip, 256, 1).frames
        places = np.linspace(0, len(frames) - 2, _RUNS).astype(int)
        pairs = [np.asarray(frames[t : t + 2]) for t in places]
        found[f"real {clip.group}"].append(texture(pairs))
    write_page(args.output, {column: clips for column, clips in found.items() if clips})
    print(args.output / "phantom.md")


def clip_frames(subject: Subject, wanted: Sequence[int]) -> list[Shot]:
    """Frames of a subject's clip of 60, with receiver's noise and persistence."""
    rendered = sorted({max(0, number - back) for number in wanted for back in range(3)})
    body = subject.body
    shots = film(body, body.states(FRAMES), 1, [1], rendered)
    by_number = dict(zip(rendered, shots, strict=True))
    return [by_number[number] for number in wanted]


def runs(subject: Subject, places: Sequence[int] = _PLACES) -> list[Frames]:
    """Pairs of neighbouring frames, uint8 (2, H, W) each."""
    shots = clip_frames(subject, [place + step for place in places for step in (-1, 0)])
    return [np.stack([a.image, b.image]) for a, b in zip(shots[::2], shots[1::2], strict=True)]


def texture(runs: Sequence[Frames]) -> dict[str, float]:
    """Statistics of one clip by name; nan where one is not defined.

    Grey is from 0 to 1, lengths are pixels of the 256x256 frame.

    Args:
        runs: of neighbouring frames, each (T, H, W).
    """
    # The sector of a clip that does not say where it is: the convex hull of what is not black.
    lit = clip_mask(np.concatenate(runs)).astype(np.uint8)
    lit = cv2.morphologyEx(lit, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))  # no small marks
    hull = cv2.fillConvexPoly(np.zeros_like(lit), cv2.convexHull(cv2.findNonZero(lit)), 1)
    kernel = np.ones((2 * _INSIDE + 1,) * 2, np.uint8)
    black = cv2.BORDER_CONSTANT  # beyond the picture, whose edge then is the sector's
    sector, inside = hull > 0, cv2.erode(hull, kernel, borderType=black, borderValue=0) > 0
    left, right = np.flatnonzero(inside.any(axis=0))[[0, -1]]
    third = (right - left) // 3
    middle = inside.copy()  # where a curved array's beams run down the picture
    middle[:, : left + third] = middle[:, right - third :] = False
    first = [to_float(run[0]) for run in runs]
    fine = [high_pass(grey) for grey in first]
    levels = np.concatenate([blur(grey, 4.0)[inside] for grey in first])
    squares = np.concatenate([np.square(high[inside]) for high in fine])
    pixels = np.concatenate([grey[sector] for grey in first])
    neighbours = [
        ncc(a, b, sector) for run in runs for a, b in pairwise(high_pass(to_float(f)) for f in run)
    ]
    values = {}
    for low, high in pairwise(_BINS):
        bin_ = squares[(levels >= low) & (levels < high)]
        deviation = float(np.sqrt(bin_.mean())) if len(bin_) > _FEWEST else np.nan
        values[f"high-pass deviation at mean grey {low} to {high}"] = deviation
    values |= {
        "width of a speckle along the beam": float(np.mean([_width(h, middle) for h in fine])),
        "width across the beam": float(np.mean([_width(h.T, middle.T) for h in fine])),
        "high-pass correlation of neighbouring frames": finite_mean(neighbours),
    }
    for percent in (10, 50, 90, 99):
        values[f"grey: percentile {percent}"] = float(np.percentile(pixels, percent))
    return values | {"share of the sector below 0.02": float((pixels < 0.02).mean())}


def _width(high: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Full width at half maximum of the autocorrelation along the first axis, pixels."""
    before = 1.0
    for lag in range(1, _LAGS):
        now = ncc(high[:-lag], high[lag:], mask[:-lag] & mask[lag:])
        if now < 0.5:
            return 2 * (lag - 1 + (before - 0.5) / (before - now))
        before = now
    return np.nan


def pictures(
    output: Path, pelvic: Sequence[Subject], hearts: Sequence[Subject], stills: dict[str, Frames]
) -> None:
    """Draw all pictures of the page."""
    rest = []
    for number, subject in enumerate(progress(pelvic, label="at rest")):
        (shot,) = clip_frames(subject, [0])
        rest.append(_tile(subject, 0, shot, subject.name, rings=number % 2 == 1))
    title = "twelve simulated subjects at rest, as they come"
    _write(output / "phantom-rest.jpg", title, [rest[i::4] for i in range(4)])
    if stills:
        tiles = [(f"real  {name}, PFUS1, CC BY 4.0", as_tile(stills[name])) for name in stills]
        source = "PFUS1, doi 10.5281/zenodo.10800787, CC BY 4.0"
        title = f"above: real ({source}); below: simulated, as they come"
        _write(output / "phantom-real.jpg", title, list(zip(tiles[:4], rest, strict=False)))

    subject, columns = pelvic[1], []
    numbers = np.linspace(0, FRAMES - 1, 8).round().astype(int).tolist()
    for number, shot in zip(numbers, clip_frames(subject, numbers), strict=True):
        moved = ("from where it was at rest", _arrows(subject, shot))
        columns.append([_tile(subject, number, shot, f"frame {number}"), moved])
    title = f"a simulated Valsalva manoeuvre, {subject.name}; below: exact displacement"
    _write(output / "phantom-valsalva.jpg", title, columns)

    columns = []
    for subject in progress(hearts, label="hearts"):
        points = subject.body.landmark_pixels(subject.body.states(FRAMES))
        number = int((points[:, 1:, 1].mean(axis=1) - points[:, 0, 1]).argmin())
        shots = clip_frames(subject, [0, number])
        above = _tile(subject, 0, shots[0], f"{subject.name}, at rest", rings=False)
        columns.append([above, _tile(subject, number, shots[1], f"frame {number}")])
    title = "four simulated hearts: end of diastole, contracted"
    _write(output / "phantom-hearts.jpg", title, columns)


def _tile(subject: Subject, number: int, shot: Shot, caption: str, rings: bool = True) -> Tile:
    """A frame, with a ring around each landmark."""
    picture, body = as_tile(shot.image), subject.body
    scale = len(picture) / len(shot.image)
    (points,) = body.landmark_pixels(body.states(FRAMES)[[number]])
    for point, colour in zip(points, _COLOURS, strict=False):
        if rings:
            place = np.rint((point + 0.5) * scale - 0.5).astype(int).tolist()
            cv2.circle(picture, place, 4, colour, 1, cv2.LINE_AA)
    return f"synthetic  {caption}", picture


def _arrows(subject: Subject, shot: Shot) -> Frames:
    """From where tissue was at rest to where it is, on the darkened frame; red is 25 pixels."""
    picture = as_tile(shot.image // 3)
    scale = len(picture) / len(shot.image)
    moved = np.minimum(np.linalg.norm(shot.displacement, axis=-1) / 25, 1)
    level = np.uint8(255 * (0.3 + 0.7 * moved))
    colours = cv2.applyColorMap(level, cv2.COLORMAP_TURBO)[..., ::-1].tolist()
    for y, x in np.argwhere(subject.body.probe.sector()):
        if x % 20 == y % 20 == 10:
            ends = np.array([[x, y] + shot.displacement[y, x], [x, y]])
            was, now = np.rint(ends * scale).astype(int).tolist()
            cv2.arrowedLine(picture, was, now, colours[y][x], 1, cv2.LINE_AA, tipLength=0.2)
    return picture


def _write(path: Path, title: str, columns: Sequence[Sequence[Tile]]) -> None:
    picture = cv2.cvtColor(in_columns(title, columns), cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    atomic_write_bytes(path, data.tobytes())


def write_page(output: Path, found: Textures) -> None:
    """Write the statistics into phantom.json, and their table into phantom.md."""
    atomic_write_text(output / "phantom.json", json_text({"seed": SEED, "textures": found}))
    rows = [["clips", *(str(len(clips)) for clips in found.values())]]
    for name in next(iter(found.values()))[0]:
        rows.append([name, *(_spread([clip[name] for clip in clips]) for clips in found.values())])
    head = ["mean over clips (least to most)", *found]
    page, above = output / "phantom.md", "# The phantom\n\n"
    if page.is_file():
        above = page.read_text(encoding="utf-8").partition(_MARK)[0] or above
    atomic_write_text(page, f"{above}{_MARK}\n\n{grid(head, rows)}\n")


def _spread(values: Sequence[float]) -> str:
    """Mean, least and most of those that are known."""
    known = np.array(values)[np.isfinite(values)]
    if not len(known):
        return "-"
    mean, low, high = (f"{value:.3g}" for value in (known.mean(), known.min(), known.max()))
    return f"{mean} ({low} to {high})" if len(known) > 1 else mean


if __name__ == "__main__":
    main()
