"""The report of an evaluation: a record for programs (JSON) and tables for people (Markdown)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.files import atomic_write_text
from .fidelity import Fidelity
from .metrics import FLOW_PRESET, MOVING_PIXELS, Leakage
from .tasks import METHODS, ClipResult, by_group, mean_leakage, means

FORMAT = 1
LEAK_LEVEL = 0.1
"""A clip leaks when the driving frame's speckle shows in the result this much above the floor."""

_TITLES = {"model": "model", "hold": "hold", "blur": "best blur", "flow": "dense flow"}
_SHORT = {
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
    *("L1 ratio", "best blur", "dense flow", "low-pass", "best blur", "dense flow"),
    *("sharpness", "best blur", "dense flow", "motion agr.", "dense flow"),
    *("temp. ratio", "dense flow", "temp. corr.", "dense flow"),
)
_SECOND_HEAD = (
    *("clip", "driven by", "NCC source", "NCC driving", "floor", "leaks"),
    *("L1", "hold", "PSNR dB", "hold", "SSIM", "hold"),
)
_NOTES = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out), absolute motion; repeated
frames are dropped. Sums run over frames and over the pixels where the clip's mean exceeds 0.03;
means run over the clips for which a measure is defined. `hold`: the source as it is; `best blur`:
the source, Gaussian-blurred by the sigma that fits the clip best; `dense flow`: the source warped
by OpenCV's DIS flow ({FLOW_PRESET}). The last two see the target.

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
"""


@dataclass(frozen=True)
class Report:
    """What `results.json` holds.

    Attributes:
        command: the command line.
        subject: what was evaluated, with digest and versions (`Subject.facts`).
        settings: task, data, split, crop, frames, seed.
        results: per clip.
        left_out: (clip, reason) of clips that count in no mean.
        warnings: what the dataset said.
    """

    command: str
    subject: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Sequence[ClipResult]
    left_out: Sequence[tuple[str, str]]
    warnings: Sequence[str]


def leaks(leakage: Leakage) -> bool:
    """Whether the driving speckle shows: LEAK_LEVEL above the floor, or more than the source's."""
    return leakage.driving - leakage.floor > LEAK_LEVEL or leakage.driving >= leakage.source


def to_record(report: Report) -> dict[str, Any]:
    """The report as plain JSON types; measures that are not defined are null."""
    clips = []
    for result in report.results:
        row = asdict(result)
        row["methods"] = {name: each._asdict() for name, each in result.methods.items()}
        row["leakage"] = _leakage_record(result.leakage)
        clips.append(row)
    record = {
        "format": FORMAT,
        "command": report.command,
        "subject": dict(report.subject),
        "settings": {**report.settings, "flow": f"OpenCV DIS, preset {FLOW_PRESET}"},
        "means": {"all": _summary(report.results)}
        | {group: _summary(rows) for group, rows in by_group(report.results)},
        "clips": clips,
        "left_out": [{"clip": clip, "reason": reason} for clip, reason in report.left_out],
        "warnings": list(report.warnings),
    }
    return _plain(record)


def to_json(report: Report) -> str:
    """`to_record` as text."""
    return json.dumps(to_record(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(report: Report) -> str:
    """The tables: means, means by group, every clip, what was left out, and how to read them."""
    results = report.results
    facts = {**report.subject, **report.settings}
    groups = [("all", list(results)), *by_group(results)]
    parts = [
        "# Reconstruction",
        f"`{report.command}`",
        _bullets([f"{key}: {value}" for key, value in facts.items()]),
        "## Means over clips",
        _grid(
            ["method", *_SHORT.values()],
            [[_TITLES[m], *_numbers(means(results, m))] for m in METHODS],
        ),
        "## By group: the model",
        _grid(
            ["group", "clips", *_SHORT.values(), "NCC source", "NCC driving", "floor"],
            [
                [
                    *(group, str(len(rows))),
                    *_numbers(means(rows, "model")),
                    *_leakage_cells(mean_leakage(rows)),
                ]
                for group, rows in groups
            ],
        ),
        "## By clip",
        _grid(
            _CLIP_HEAD,
            [_clip_row(result) for result in results],
        ),
        "## Leakage and plain measures, by clip",
        _grid(
            _SECOND_HEAD,
            [_second_row(result) for result in results],
        ),
    ]
    if report.left_out:
        parts += ["## Left out", _bullets([f"{clip}: {why}" for clip, why in report.left_out])]
    if report.warnings:
        parts += ["## Warnings", _bullets(report.warnings)]
    parts += ["## How to read it", _NOTES.strip()]
    return "\n\n".join(parts) + "\n"


def write_report(report: Report, folder: Path) -> None:
    """Write `results.json` and `table.md`, each whole. OutputError when they cannot be written."""
    atomic_write_text(folder / "table.md", to_markdown(report))
    atomic_write_text(folder / "results.json", to_json(report))


def summary_line(report: Report) -> str:
    """The model's means in one line, for the terminal."""
    numbers, flow = means(report.results, "model"), means(report.results, "flow")
    tested = [r.leakage for r in report.results if r.leakage is not None]
    count = sum(leaks(leakage) for leakage in tested)
    leaking = f"leaks in {count} of {len(tested)}" if count else "no leakage"
    return (
        f"{len(report.results)} clips: L1 ratio {_number(numbers.l1_ratio)} (hold 1, dense flow "
        f"{_number(flow.l1_ratio)}), low-pass {_number(numbers.low_pass_ratio)}, sharpness "
        f"{_number(numbers.sharpness)}, motion agreement {_number(numbers.motion_agreement)}, "
        f"{leaking if tested else 'leakage not tested (one subject)'}"
    )


def _summary(results: Sequence[ClipResult]) -> dict[str, Any]:
    leaking = [r.clip for r in results if r.leakage is not None and leaks(r.leakage)]
    return {
        "clips": len(results),
        "methods": {name: means(results, name)._asdict() for name in METHODS},
        "leakage": _leakage_record(mean_leakage(results)),
        "leaking": leaking,
    }


def _leakage_record(leakage: Leakage | None) -> dict[str, Any] | None:
    return None if leakage is None else {**leakage._asdict(), "leaks": leaks(leakage)}


def _clip_row(result: ClipResult) -> list[str]:
    model, blur, flow = (result.methods[name] for name in ("model", "blur", "flow"))
    numbers = [
        *(model.l1_ratio, blur.l1_ratio, flow.l1_ratio),
        *(model.low_pass_ratio, blur.low_pass_ratio, flow.low_pass_ratio),
        *(model.sharpness, blur.sharpness, flow.sharpness),
        *(model.motion_agreement, flow.motion_agreement),
        *(model.temporal_ratio, flow.temporal_ratio),
        *(model.temporal_correlation, flow.temporal_correlation),
    ]
    head = [result.clip, result.group, str(result.driven), f"{result.mean_flow:.1f}"]
    return head + [_number(number) for number in numbers]


def _second_row(result: ClipResult) -> list[str]:
    model, hold = result.methods["model"], result.methods["hold"]
    leak = "-" if result.leakage is None else "yes" if leaks(result.leakage) else "no"
    return [
        *(result.clip, result.driver or "-", *_leakage_cells(result.leakage), leak),
        *(f"{model.l1:.4f}", f"{hold.l1:.4f}", f"{model.psnr:.2f}", f"{hold.psnr:.2f}"),
        *(_number(model.ssim), _number(hold.ssim)),
    ]


def _numbers(fidelity: Fidelity) -> list[str]:
    digits = {"l1": 4, "psnr": 2}
    return [_number(number, digits.get(name, 3)) for name, number in fidelity._asdict().items()]


def _leakage_cells(leakage: Leakage | None) -> list[str]:
    return ["-"] * 3 if leakage is None else [_number(number) for number in leakage]


def _number(number: float, digits: int = 3) -> str:
    return f"{number:.{digits}f}" if math.isfinite(number) else "-"


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> Any:
    """Containers copied, tuples as lists, numbers that JSON does not know as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
