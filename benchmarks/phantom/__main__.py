"""What the phantom is worth: its physics measured, its speckle beside that of real clips, pictures.

    OMP_NUM_THREADS=1 python -m sonomime.benchmarks.phantom -o docs/results --real DIR --stills DIR

Writes phantom.json, phantom-*.jpg and phantom.md into the folder; of a phantom.md that is there,
what stands above the line `<!-- measured -->` is kept. DIR after --real is a dataset folder, after
--stills a folder of images; without them their columns are left out.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import letterbox, read_image, to_channels
from ...runtime.support.atomic_files import atomic_write_text
from ...runtime.support.progress import progress
from ...training.data.dataset import find_clips, load_clip
from ...training.evaluation.report import json_text
from ...training.phantom.subject import Subject
from ..measure import environment
from .clips import (
    Report,
    exact_displacement,
    exact_field,
    exact_maps,
    neighbours,
    seeds,
    stretches,
    subjects,
)
from .page import Film, beside_real, figures, hearts, rest_sheet, tables, valsalva
from .physics import MEASURES, Check

SEED = 2026
_MARK = "<!-- measured -->"
_GROUPS = ("muscle", "lung")
_RUNS = 8  # of two neighbouring frames, from each real clip
_HEARTS = 4
Still = tuple[str, NDArray[np.uint8]]
"""Name and picture (256, 256)."""


def main() -> None:
    """Measure, draw, write."""
    parser = argparse.ArgumentParser(
        "python -m sonomime.benchmarks.phantom", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--real", type=Path, metavar="DIR", help="dataset folder of real clips")
    parser.add_argument("--stills", type=Path, metavar="DIR", help="folder of real pelvic images")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)  # seconds are a core's
    report, stills = Report(), list(_stills(args.stills))
    with tempfile.TemporaryDirectory() as folder:
        simulate(report, Path(folder), args.output, stills)
    real(report, args.real, stills)
    figures(args.output, report)
    machine = environment()
    facts = {"format": 1, "seed": SEED, "environment": machine, **asdict(report)}
    # Five digits of every number that is no whole one.
    short = json.loads(json_text(facts), parse_float=lambda text: float(f"{float(text):.5g}"))
    atomic_write_text(args.output / "phantom.json", json_text(short))
    page = args.output / "phantom.md"
    above = page.read_text(encoding="utf-8").partition(_MARK)[0] if page.is_file() else ""
    atomic_write_text(page, f"{above or '# The phantom'}{_MARK}\n\n{tables(report, machine)}")
    print(page)


def simulate(report: Report, folder: Path, output: Path, stills: Sequence[Still]) -> None:
    """Everything that is rendered."""
    for measure in progress(MEASURES, label="physics"):
        report.checks += measure()
    pelvic, heart = subjects("pelvic", SEED, 12), subjects("heart", SEED, _HEARTS)
    report.checks += exact_maps([*pelvic, *heart])
    for some in (pelvic, heart):
        report.checks += exact_displacement(some)
    report.checks += exact_field(pelvic[0]) + seeds(pelvic[1])
    for column, some in (("pelvic", pelvic[:4]), ("heart", heart)):
        found = []
        for subject in progress(some, label=f"{column}, neighbouring frames"):
            runs = stretches(subject)
            report.add(f"phantom {column}", runs)
            found.append(neighbours(runs, subject))
        name = f"{column}: high-pass correlation of neighbouring frames, mean of {len(some)}"
        # The bound is METHOD's, for pelvic clips: a beating heart goes further from frame to frame.
        bounds = (0.85, 0.98) if column == "pelvic" else (-math.inf, math.inf)
        report.checks.append(Check(name, float(np.mean(found)), *bounds))
    rest = [Film.make(folder / "rest", s, 1) for s in progress(pelvic, label="at rest")]
    rest_sheet(output / "phantom-rest.jpg", rest)
    if stills:
        beside_real(output / "phantom-real.jpg", stills[:4], rest)
    clips = [timed(report, folder, subject, 60) for subject in (pelvic[1], heart[0])]
    valsalva(output / "phantom-valsalva.jpg", clips[0])
    beats = [Film.make(folder / "beats", s, 12) for s in progress(heart, label="hearts")]
    hearts(output / "phantom-hearts.jpg", beats)


def timed(report: Report, folder: Path, subject: Subject, frames: int) -> Film:
    """A whole clip with its files; notes how long it takes and how large it is."""
    began = time.process_time()
    clip = Film.make(folder / "whole", subject, frames)
    seconds = time.process_time() - began
    files = [p for p in (folder / "whole").rglob(f"{subject.name}.*") if p.is_file()]
    report.speed[subject.identity.anatomy] = {
        "frames": frames,
        "cpu_seconds": round(seconds, 2),
        "frames_per_cpu_second": round(frames / seconds, 2),
        **{f"mb_{p.suffix[1:]}": round(p.stat().st_size / 1e6, 2) for p in sorted(files)},
    }
    return clip


def real(report: Report, folder: Path | None, stills: Sequence[Still]) -> None:
    """The same statistics of real clips."""
    for _, image in stills:
        report.add("real pelvic", [image[None]])
    if not stills:
        report.notes.append("no real pelvic images were given: their column is missing")
    if folder is None or not folder.is_dir():
        report.notes.append("no real clips were given: their columns are missing")
        return
    clips = [clip for clip in find_clips([folder]).clips if clip.group in _GROUPS]
    for clip in progress(clips, label="real clips"):
        frames = load_clip(clip, 256, 1).frames
        places = np.linspace(0, len(frames) - 2, _RUNS).astype(int)
        report.add(f"real {clip.group}", [np.asarray(frames[t : t + 2]) for t in places])


def _stills(folder: Path | None) -> Iterator[Still]:
    """A folder's images without masks of organs."""
    if folder is not None and folder.is_dir():
        for path in sorted(folder.glob("*.png")):
            if not path.stem.endswith("_gt"):
                yield path.stem, letterbox(to_channels(read_image(path), 1), 256)[0]


if __name__ == "__main__":
    main()
