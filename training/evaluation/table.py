"""The report of an evaluation: a record for programs (JSON) and tables for people (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text
from .fidelity import Fidelity
from .metrics import FLOW_PRESET, MOVING_PIXELS, Leakage
from .reconstruction import METHODS, ORACLE, ClipResult, by_group, mean_leakage, means
from .summary import (
    LANDMARK_HEAD,
    Unit,
    exact_record,
    landmark_cells,
    summarise,
    summary_parts,
    summary_record,
)
from .text import bullets, grid, json_text, number, plain, remarks

FORMAT = 1
LEAK_LEVEL = 0.1
"""A clip leaks when the driving frame's speckle shows in the result this much above the floor."""

_TITLES = {
    "model": "model",
    "hold": "hold",
    "blur": "best blur",
    "flow": "dense flow",
    ORACLE: "oracle",
}
SHORT = {
    "l1_ratio": "L1 ratio",
    "low_pass_ratio": "low-pass",
    "sharpness": "sharpness",
    "motion_agreement": "motion agr.",
    "temporal_ratio": "temp. ratio",
    "temporal_correlation": "temp. corr.",
    "l1": "L1",
    "psnr": "PSNR dB",
    "ssim": "SSIM",
}
_CLIP_HEAD = (
    *("clip", "group", "frames", "flow px"),
    *("L1 ratio", "best blur", "dense flow", "oracle", "low-pass", "best blur", "dense flow"),
    *("sharpness", "best blur", "dense flow", "motion agr.", "dense flow"),
    *("temp. ratio", "dense flow", "temp. corr.", "dense flow"),
)
_SECOND_HEAD = (
    *("clip", "driven by", "NCC source", "NCC driving", "floor", "leaks"),
    *("L1", "hold", "PSNR dB", "hold", "SSIM", "hold"),
)
_EXACT_HEAD = (
    *("clip", "skill", "best blur", "dense flow", "endpoint px", "hold"),
    *(f"landmarks {word}" for word in LANDMARK_HEAD),
)
_NOTES = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out), absolute motion; repeated
frames are dropped. Sums run over frames and over the pixels where the clip's mean exceeds 0.03;
means run over the clips for which a measure is defined. `hold`: the source as it is; `best blur`:
the source, Gaussian-blurred by the sigma that fits the clip best; `dense flow`: the source warped
by OpenCV's DIS flow ({FLOW_PRESET}). The last two see the target. `oracle`: the source warped by
the exact field, on the clips that have one (displacement/ of a phantom).

- L1 ratio: sum |y - x| / sum |S - x|; low-pass: the same after a Gaussian blur of 4 px. Lower is
  better, hold is 1.
- sharpness: std(y - G2 y) / std(x - G2 x); 1 is as sharp as real frames.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)| over forward-backward-consistent
  pixels, clips with a mean flow above {MOVING_PIXELS:g} px. 1 is the same motion, hold is 0.
- temporal: ratio of the standard deviations and correlation of G3 of frame differences, y's and
  x's. With --max-frames these are differences of the thinned clip, not of neighbours.
- L1, PSNR, SSIM: all pixels, [0, 1], per frame, then per clip.
- leakage: another subject's clip drives, relative motion. Correlation of the high-passed result
  with the high-passed warped source (should be high) and with the high-passed driving frame
  (should be no more than the floor, which is the warped source's own correlation with it). A clip
  leaks from {LEAK_LEVEL:g} above the floor.
- exact field: skill is (L1 of hold - L1) / (L1 of hold - L1 of the oracle) inside of the sector;
  endpoint error is that of the model's deformation; landmarks are followed from the middle frame in
  both directions by a tracker that does not know the model, its own error is that on true frames.
"""


@dataclass(frozen=True)
class Report:
    """What `results.json` holds.

    Attributes:
        command: the command line.
        candidate: what was evaluated, with digest and versions (`Candidate.facts`).
        settings: task, data, split, crop, frames, seed.
        results: per clip.
        left_out: (clip, reason) of clips that count in no mean.
        warnings: what the dataset said.
    """

    command: str
    candidate: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Sequence[ClipResult]
    left_out: Sequence[tuple[str, str]]
    warnings: Sequence[str]


def leaks(leakage: Leakage) -> bool:
    """Whether the driving speckle shows: LEAK_LEVEL above the floor, or more than the source's."""
    return leakage.driving - leakage.floor > LEAK_LEVEL or leakage.driving >= leakage.source


def to_record(report: Report) -> dict[str, Any]:
    """The report as plain JSON types; measures that are not defined are null."""
    clips, seed = [], _seed(report)
    for result in report.results:
        row = asdict(result)
        row["methods"] = {name: each._asdict() for name, each in result.methods.items()}
        row["leakage"] = _leakage_record(result.leakage)
        row["exact"] = exact_record(result.exact)
        clips.append(row)
    record = {
        "format": FORMAT,
        "command": report.command,
        "candidate": dict(report.candidate),
        "settings": {**report.settings, "flow": f"OpenCV DIS, preset {FLOW_PRESET}"},
        "means": {"all": _summary(report.results, seed)}
        | {group: _summary(rows, seed) for group, rows in by_group(report.results)},
        "clips": clips,
        "left_out": [{"clip": clip, "reason": reason} for clip, reason in report.left_out],
        "warnings": list(report.warnings),
    }
    found: dict[str, Any] = plain(record)
    return found


def to_json(report: Report) -> str:
    """`to_record` as text."""
    return json_text(to_record(report))


def to_markdown(report: Report) -> str:
    """The tables: means, means by group, every clip, what was left out, and how to read them."""
    results = report.results
    facts = {**report.candidate, **report.settings}
    groups = [("all", list(results)), *by_group(results)]
    parts = [
        "# Reconstruction",
        f"`{report.command}`",
        bullets([f"{key}: {value}" for key, value in facts.items()]),
        "## Means over clips",
        grid(
            ["method", *SHORT.values()],
            [[_TITLES[m], *fidelity_cells(means(results, m))] for m in (*METHODS, ORACLE)],
        ),
        "## By group: the model",
        grid(
            ["group", "clips", *SHORT.values(), "NCC source", "NCC driving", "floor"],
            [
                [
                    *(group, str(len(rows))),
                    *fidelity_cells(means(rows, "model")),
                    *_leakage_cells(mean_leakage(rows)),
                ]
                for group, rows in groups
            ],
        ),
        "## By clip",
        grid(
            _CLIP_HEAD,
            [_clip_row(result) for result in results],
        ),
        "## Leakage and plain measures, by clip",
        grid(
            _SECOND_HEAD,
            [_second_row(result) for result in results],
        ),
    ]
    if units := _units(results):
        parts += [
            "## Against the exact field",
            *summary_parts(summarise(units, _seed(report)), _TITLES),
        ]
        parts.append(grid(_EXACT_HEAD, [_exact_row(result) for result in results]))
    parts += remarks(report.left_out, report.warnings, _NOTES)
    return "\n\n".join(parts) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `results.json` and `table.md`, each whole. OutputError when they cannot be written."""
    write_texts(folder, to_markdown(report), to_json(report))


def write_texts(folder: Path, markdown: str, record: str) -> None:
    """Write `table.md` and `results.json`, each whole. OutputError when they cannot be written."""
    atomic_write_text(folder / "table.md", markdown)
    atomic_write_text(folder / "results.json", record)


def summary_line(report: Report) -> str:
    """The model's means in one line, for the terminal."""
    numbers, flow = means(report.results, "model"), means(report.results, "flow")
    tested = [r.leakage for r in report.results if r.leakage is not None]
    count = sum(leaks(leakage) for leakage in tested)
    leaking = f"leaks in {count} of {len(tested)}" if count else "no leakage"
    return (
        f"{len(report.results)} clips: L1 ratio {number(numbers.l1_ratio)} (hold 1, dense flow "
        f"{number(flow.l1_ratio)}), low-pass {number(numbers.low_pass_ratio)}, sharpness "
        f"{number(numbers.sharpness)}, motion agreement {number(numbers.motion_agreement)}, "
        f"{leaking if tested else 'leakage not tested (one subject)'}"
    )


def _summary(results: Sequence[ClipResult], seed: int) -> dict[str, Any]:
    leaking = [r.clip for r in results if r.leakage is not None and leaks(r.leakage)]
    methods = (*METHODS, ORACLE) if any(ORACLE in r.methods for r in results) else METHODS
    return {
        "clips": len(results),
        "methods": {name: means(results, name)._asdict() for name in methods},
        "leakage": _leakage_record(mean_leakage(results)),
        "leaking": leaking,
        "exact": summary_record(summarise(units, seed)) if (units := _units(results)) else None,
    }


def _units(results: Sequence[ClipResult]) -> list[Unit]:
    return [Unit((r.subject,), r.exact) for r in results if r.exact is not None]


def _seed(report: Report) -> int:
    return int(report.settings.get("seed", 0))


def _leakage_record(leakage: Leakage | None) -> dict[str, Any] | None:
    return None if leakage is None else {**leakage._asdict(), "leaks": leaks(leakage)}


def _clip_row(result: ClipResult) -> list[str]:
    model, blur, flow = (result.methods[name] for name in ("model", "blur", "flow"))
    oracle = result.methods.get(ORACLE)
    numbers = [
        *(model.l1_ratio, blur.l1_ratio, flow.l1_ratio),
        math.nan if oracle is None else oracle.l1_ratio,
        *(model.low_pass_ratio, blur.low_pass_ratio, flow.low_pass_ratio),
        *(model.sharpness, blur.sharpness, flow.sharpness),
        *(model.motion_agreement, flow.motion_agreement),
        *(model.temporal_ratio, flow.temporal_ratio),
        *(model.temporal_correlation, flow.temporal_correlation),
    ]
    head = [result.clip, result.group, str(result.driven), f"{result.mean_flow:.1f}"]
    return head + [number(each) for each in numbers]


def _exact_row(result: ClipResult) -> list[str]:
    exact = result.exact
    if exact is None:
        return [result.clip, *["-"] * (len(_EXACT_HEAD) - 1)]
    skills = [number(exact.skill[name]) for name in ("model", "blur", "flow")]
    ends = [number(exact.endpoint_error, 2), number(exact.endpoint_hold, 2)]
    return [result.clip, *skills, *ends, *landmark_cells(exact.landmark)]


def _second_row(result: ClipResult) -> list[str]:
    model, hold = result.methods["model"], result.methods["hold"]
    leak = "-" if result.leakage is None else "yes" if leaks(result.leakage) else "no"
    return [
        *(result.clip, result.driver or "-", *_leakage_cells(result.leakage), leak),
        *(f"{model.l1:.4f}", f"{hold.l1:.4f}", f"{model.psnr:.2f}", f"{hold.psnr:.2f}"),
        *(number(model.ssim), number(hold.ssim)),
    ]


def fidelity_cells(fidelity: Fidelity) -> list[str]:
    """The cells under SHORT."""
    digits = {"l1": 4, "psnr": 2}
    return [number(each, digits.get(name, 3)) for name, each in fidelity._asdict().items()]


def _leakage_cells(leakage: Leakage | None) -> list[str]:
    return ["-"] * 3 if leakage is None else [number(each) for each in leakage]
