"""Means over clips or pairs of what only an exact field allows, with intervals over subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .ground_truth.scores import Exact
from .intervals import DRAWS, LEVEL, Interval, weighted_mean, weighted_ratio
from .landmarks import LandmarkError, mean_error
from .metrics import finite_mean
from .text import bullets, grid, interval, number

LANDMARK_HEAD = ("model", "hold", "oracle", "tracker on truth", "model / hold")


class Unit(NamedTuple):
    """A clip or a pair: whom it shows and what was measured."""

    subjects: tuple[str, ...]
    exact: Exact


@dataclass(frozen=True)
class ExactSummary:
    """Means over units.

    Attributes:
        skill, l1: by method.
        model_skill, landmark_ratio: the model's, with intervals over subjects.
        endpoint_error, endpoint_hold: in pixels.
        landmarks: mean errors by name, over the units that have it; `landmark` over all of them.
    """

    units: int
    skill: dict[str, float]
    l1: dict[str, float]
    model_skill: Interval | None
    landmark_ratio: Interval | None
    endpoint_error: float
    endpoint_hold: float
    landmarks: dict[str, LandmarkError]
    landmark: LandmarkError | None


def summarise(units: Sequence[Unit], seed: int) -> ExactSummary:
    """The summary of units; see `intervals.weighted_ratio` for what is resampled.

    The landmark ratio is the mean over units of the model's error over that of hold's.
    """
    subjects = [unit.subjects for unit in units]
    facts = [unit.exact for unit in units]
    methods = list(facts[0].skill) if facts else []
    means = [exact.landmark for exact in facts]
    tops = [math.nan if mean is None else mean.model for mean in means]
    bottoms = [math.nan if mean is None else mean.hold for mean in means]
    names = sorted({name for exact in facts for name in exact.landmarks})
    return ExactSummary(
        units=len(units),
        skill={m: finite_mean([exact.skill[m] for exact in facts]) for m in methods},
        l1={m: finite_mean([exact.l1[m] for exact in facts]) for m in methods},
        model_skill=weighted_mean(subjects, [exact.skill["model"] for exact in facts], seed),
        landmark_ratio=weighted_ratio(subjects, tops, bottoms, seed),
        endpoint_error=finite_mean([exact.endpoint_error for exact in facts]),
        endpoint_hold=finite_mean([exact.endpoint_hold for exact in facts]),
        landmarks={
            name: error
            for name in names
            if (error := mean_error(e.landmarks[name] for e in facts if name in e.landmarks))
        },
        landmark=mean_error(mean for mean in means if mean is not None),
    )


def by_subject(units: Sequence[Unit], role: int, seed: int) -> dict[str, ExactSummary]:
    """A summary for each subject, of the units in which it has a role (its place in `subjects`)."""
    names = sorted({unit.subjects[role] for unit in units})
    return {
        name: summarise([unit for unit in units if unit.subjects[role] == name], seed)
        for name in names
    }


def exact_record(exact: Exact | None) -> dict[str, Any] | None:
    """The measures of one unit for results.json."""
    if exact is None:
        return None
    mean = exact.landmark
    return {
        "l1": exact.l1,
        "skill": exact.skill,
        "endpoint_error": exact.endpoint_error,
        "endpoint_hold": exact.endpoint_hold,
        "landmarks": {name: error._asdict() for name, error in exact.landmarks.items()},
        "landmark": None if mean is None else mean._asdict(),
        "landmark_ratio": exact.landmark_ratio,
    }


def summary_record(summary: ExactSummary) -> dict[str, Any]:
    """The means for results.json."""
    return {
        "units": summary.units,
        "l1": summary.l1,
        "skill": summary.skill,
        "model_skill": _optional(summary.model_skill),
        "landmark_ratio": _optional(summary.landmark_ratio),
        "endpoint_error": summary.endpoint_error,
        "endpoint_hold": summary.endpoint_hold,
        "landmarks": {name: error._asdict() for name, error in summary.landmarks.items()},
        "landmark": _optional(summary.landmark),
    }


def summary_parts(summary: ExactSummary, titles: Mapping[str, str]) -> list[str]:
    """The parts of a report: intervals, skill by method, landmarks by name."""
    pixels = f"{number(summary.endpoint_error, 2)} px (hold {number(summary.endpoint_hold, 2)})"
    parts = [
        bullets(
            [
                f"skill of the model: {interval(summary.model_skill)}",
                f"landmark error, model / hold: {interval(summary.landmark_ratio)}",
                f"endpoint error of the deformation: {pixels}",
                f"in brackets: {LEVEL:.0%} over subjects, {DRAWS} draws; none below 3 subjects",
            ]
        ),
        grid(
            ["method", "L1 in sector", "skill"],
            [
                [titles.get(m, m), number(summary.l1[m], 4), number(skill)]
                for m, skill in summary.skill.items()
            ],
        ),
    ]
    rows = list(summary.landmarks.items())
    if summary.landmark is not None:
        rows.append(("all", summary.landmark))
        head = ["landmark error, px", *LANDMARK_HEAD]
        parts.append(grid(head, [[name, *landmark_cells(error)] for name, error in rows]))
    return parts


def landmark_cells(error: LandmarkError | None) -> list[str]:
    """The cells under LANDMARK_HEAD."""
    if error is None:
        return ["-"] * len(LANDMARK_HEAD)
    return [*(number(each, 2) for each in error), number(error.share)]


def _optional(row: Interval | LandmarkError | None) -> dict[str, float] | None:
    return None if row is None else row._asdict()
