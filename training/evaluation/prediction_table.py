"""The report of predictions: the record, the tables and the line for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .fidelity import Fidelity
from .intervals import DRAWS, LEVEL
from .metrics import MOVING_PIXELS
from .prediction import METHODS, PairResult
from .reconstruction import mean_fidelity
from .summary import (
    LANDMARK_HEAD,
    Unit,
    by_subject,
    exact_record,
    landmark_cells,
    summarise,
    summary_parts,
    summary_record,
)
from .table import FORMAT, SHORT, fidelity_cells
from .text import bullets, grid, interval, json_text, number, plain, remarks

TITLES = {"blur": "best blur", "another_seed": "another seed"}
ROLES = ("source", "driving")
_NOTES = f"""\
Frame 0 of A's clip is animated by B's clip, relative to B's frame 0, scale 1, no smoothing; every
frame, the first too, is compared with the true prediction: A moved as B moves, without noise.
`hold`: the source as it is. `best blur`: the source, Gaussian-blurred by the sigma that fits the
truth best: a skill no higher than its own says nothing of motion. `oracle`: the source warped by
the exact field, which no model can know. `another seed`: the truth rendered with other scatterers:
as far from the truth as an honest rendering of the same anatomy that guesses the speckle. Pixels
are those of the model's frame.

- skill: (L1 of hold - L1) / (L1 of hold - L1 of the oracle), L1 summed over frames inside of the
  sector, per pair, then the mean over pairs. hold is 0, the oracle 1.
- landmark error: the source's landmarks, known, followed through the frames by a tracker that does
  not know the model (pyramidal Lucas-Kanade, forward-backward), distance from the true ones. Hold's
  is exact; the tracker's own error is that on the true prediction. The ratio is the model's mean
  error over hold's.
- endpoint error: mean distance of the model's deformation from the exact field inside of the
  sector; that of hold is the mean length of the field.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)| with F(y->S) measured (OpenCV's DIS)
  and F(x->S) EXACT, over the pixels whose tissue the source's sector shows, pairs with a mean field
  above {MOVING_PIXELS:g} px. It is stricter than that of a reconstruction, where both are measured;
  the oracle shows what the measurement reaches.
- L1 ratio, low-pass, sharpness, temporal: as for a reconstruction, over the sector. L1, PSNR, SSIM:
  all pixels.
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; a pair
  weighs the product of how often its source and its driving subject were drawn.
"""


@dataclass(frozen=True)
class PredictionReport:
    """What `results.json` holds; the same fields as a `table.Report`, with pairs for clips."""

    command: str
    candidate: Mapping[str, str]
    settings: Mapping[str, Any]
    results: Sequence[PairResult]
    warnings: Sequence[str]
    seed: int = 0


def to_record(report: PredictionReport) -> dict[str, Any]:
    """The report as plain JSON types; measures that are not defined are null."""
    pairs = []
    for result in report.results:
        row = {key: value for key, value in asdict(result).items() if key != "subjects"}
        row["source_subject"], row["driving_subject"] = result.subjects
        row["methods"] = {name: each._asdict() for name, each in result.methods.items()}
        row["exact"] = exact_record(result.exact)
        pairs.append(row)
    units = _units(report.results)
    record = {
        "format": FORMAT,
        "command": report.command,
        "candidate": dict(report.candidate),
        "settings": {**report.settings, "flow": "exact field; DIS for F(y->S)"},
        "means": {
            "pairs": len(units),
            "methods": {name: _means(report.results, name)._asdict() for name in METHODS},
            "exact": summary_record(summarise(units, report.seed)),
        },
        "subjects": {
            role: {
                name: summary_record(summary)
                for name, summary in by_subject(units, place, report.seed).items()
            }
            for place, role in enumerate(ROLES)
        },
        "pairs": pairs,
        "warnings": list(report.warnings),
    }
    found: dict[str, Any] = plain(record)
    return found


def to_json(report: PredictionReport) -> str:
    """`to_record` as text."""
    return json_text(to_record(report))


def to_markdown(report: PredictionReport) -> str:
    """The tables: against the exact field, fidelity, by subject, every pair, how to read them."""
    results, units = report.results, _units(report.results)
    facts = {**report.candidate, **report.settings}
    parts = [
        "# Prediction",
        f"`{report.command}`",
        bullets([f"{key}: {value}" for key, value in facts.items()]),
        f"## Against the truth: {len(results)} pairs",
        *summary_parts(summarise(units, report.seed), TITLES),
        "## Fidelity, means over pairs",
        grid(
            ["method", *SHORT.values()],
            [[TITLES.get(m, m), *fidelity_cells(_means(results, m))] for m in METHODS],
        ),
        "## By subject: the model",
        grid(
            ["subject", "as", "pairs", "skill", "landmark ratio", "endpoint px", "hold"],
            [
                [
                    *(name, role, str(summary.units)),
                    number(summary.skill["model"]),
                    number(summary.landmark_ratio.mean) if summary.landmark_ratio else "-",
                    number(summary.endpoint_error, 2),
                    number(summary.endpoint_hold, 2),
                ]
                for place, role in enumerate(ROLES)
                for name, summary in by_subject(units, place, report.seed).items()
            ],
        ),
        "## By pair",
        grid(_HEAD, [_row(result) for result in results]),
        *remarks([], report.warnings, _NOTES),
    ]
    return "\n\n".join(parts) + "\n"


def summary_line(report: PredictionReport) -> str:
    """Skill, landmark ratio and L1 in one line, for the terminal."""
    summary = summarise(_units(report.results), report.seed)
    shares = {name: f"{value:.4f}" for name, value in summary.l1.items()}
    pairs = len(report.results)
    return (
        f"{pairs} pair{'s' * (pairs != 1)}: skill {interval(summary.model_skill)} (hold 0, best "
        f"blur {number(summary.skill['blur'])}, oracle 1), landmark error "
        f"{interval(summary.landmark_ratio)} of hold's, L1 {shares['model']} "
        f"(hold {shares['hold']}, oracle {shares['oracle']}, another seed "
        f"{shares['another_seed']})"
    )


_HEAD = (
    *("pair", "frames", "field px", "L1", "hold", "best blur", "oracle", "another seed"),
    *("skill", "best blur", "endpoint px", "sharpness", "motion agr.", "temp. corr."),
    *(f"landmarks {word}" for word in LANDMARK_HEAD),
)


def _row(result: PairResult) -> list[str]:
    exact, model = result.exact, result.methods["model"]
    return [
        *(result.pair, str(result.driven), number(result.mean_flow, 1)),
        *(number(exact.l1[name], 4) for name in METHODS),
        *(number(exact.skill["model"]), number(exact.skill["blur"])),
        number(exact.endpoint_error, 2),
        *(number(model.sharpness), number(model.motion_agreement)),
        number(model.temporal_correlation),
        *landmark_cells(exact.landmark),
    ]


def _units(results: Sequence[PairResult]) -> list[Unit]:
    return [Unit(result.subjects, result.exact) for result in results]


def _means(results: Sequence[PairResult], method: str) -> Fidelity:
    return mean_fidelity([result.methods[method] for result in results])
