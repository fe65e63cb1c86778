"""Each task's report: means over rows, tables, and the columns of the summary."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from . import notes, reconstruction, tracking
from .intervals import weighted_mean, weighted_ratio
from .landmarks import mean_error
from .loop import Row
from .metrics import FARNEBACK, FLOW_PRESET, Leakage, finite_mean

_FIDELITY = (
    "{l1_ratio,low_pass_ratio,sharpness,motion_agreement,farneback_agreement,"
    "temporal_ratio,temporal_correlation,l1,psnr,ssim}"
)
_LEAKAGE = "leakage.{source,driving,floor}"
_LANDMARK_METHODS = "{model,hold,oracle,truth}"
_LANDMARKS = f"exact.landmark.{_LANDMARK_METHODS} exact.landmark_ratio"
_ERRORS = "errors.{model,hold,flow} share.{model,flow}"


class Headline(NamedTuple):
    """A column of the summary.

    Attributes:
        path: in the means; {} stands for the method; without it only the model has the measure.
        meaning: for a reader who does not know the measure.
    """

    title: str
    path: str
    meaning: str
    digits: int = 2


class Layout(NamedTuple):
    """How one task's rows are summed up and shown.

    Attributes:
        what: the task in one sentence.
        units: what a row is: clips, pairs.
        flow: where the flow comes from.
        mean: the means over rows, with a seed for intervals.
        measures: the task's own keys of results.json, of rows, means by group, and seed.
        tables: heading, path of the rows in the record, columns; see `tables`.
        headlines: the summary's columns; groups are sorted by the first.
        others: methods that the summary shows beside the model.
        intervals: of the summary: titles, and paths in the means.
    """

    title: str
    what: str
    units: str
    flow: str
    notes: str
    mean: Callable[[Sequence[Row], int], Row]
    measures: Callable[[Sequence[Row], Mapping[str, Row], int], Row]
    tables: Sequence[tuple[str, str, str]]
    headlines: Sequence[Headline]
    high_is_bad: bool
    others: Sequence[str]
    intervals: Sequence[tuple[str, str]] = ()


def average(trees: Sequence[Row]) -> Row:
    """Means of the numbers in nested rows, over the rows in which they are finite; else nan."""
    means: Row = {}
    for name in dict.fromkeys(name for tree in trees for name in tree):
        values = [tree[name] for tree in trees if name in tree]
        nested = isinstance(values[0], Mapping)
        means[name] = average(values) if nested else finite_mean(values)
    return means


def _subjects(row: Row) -> tuple[str, ...]:
    """Of a clip or a pair."""
    return tuple(row[key] for key in ("subject", "source_subject", "driving_subject") if key in row)


def exact_means(rows: Sequence[Row], seed: int) -> Row | None:
    """Means of what needs an exact field; None without one.

    Returns:
        units: how many rows have a field; l1, skill: by method; model_skill, landmark_ratio: the
        model's, with intervals over subjects; endpoint_error, endpoint_hold: in pixels; landmarks:
        mean errors by name; landmark: over all.
    """
    units = [row for row in rows if row["exact"] is not None]
    if not units:
        return None
    subjects = [_subjects(unit) for unit in units]
    facts = [unit["exact"] for unit in units]
    errors = [exact["landmark"] or {} for exact in facts]
    tops, bottoms = ([error.get(m, math.nan) for error in errors] for m in ("model", "hold"))
    plain = ("l1", "skill", "endpoint_error", "endpoint_hold")
    names = sorted({name for exact in facts for name in exact["landmarks"]})
    return {
        "units": len(units),
        **average([{name: exact[name] for name in plain} for exact in facts]),
        "model_skill": weighted_mean(subjects, [e["skill"]["model"] for e in facts], seed),
        "landmark_ratio": weighted_ratio(subjects, tops, bottoms, seed),
        "landmarks": {
            name: mean_error(e["landmarks"][name] for e in facts if name in e["landmarks"])
            for name in names
        },
        "landmark": mean_error(error for error in errors if error),
    }


def _exact_tables(path: str, methods: str) -> list[tuple[str, str, str]]:
    columns = f"units model_skill {{skill,l1}}.{{{methods}}} {{endpoint_error,endpoint_hold}}"
    return [
        ("Against the exact field", path, f"{columns} landmark_ratio"),
        ("Landmarks: mean error in pixels", f"{path}.landmarks.*", f"name {_LANDMARK_METHODS}"),
    ]


def _reconstruction_mean(rows: Sequence[Row], seed: int) -> Row:
    tested = [row for row in rows if row["leakage"] is not None]
    leakage = None
    if tested:
        leakage = average([row["leakage"] for row in tested])
        mean = Leakage(*(leakage[name] for name in Leakage._fields))
        leakage["leaks"] = reconstruction.leaks(mean)
    leaking = [row["clip"] for row in tested if row["leakage"]["leaks"]]
    sized = [row["own_size"]["methods"] for row in rows if row["own_size"] is not None]
    return {
        "clips": len(rows),
        "methods": average([row["methods"] for row in rows]),
        "leakage": leakage,
        "leaking": leaking,
        "clips_leaking": len(leaking) if tested else None,
        "exact": exact_means(rows, seed),
        "own_size": {"clips": len(sized), "methods": average(sized)} if sized else None,
    }


def _prediction_mean(rows: Sequence[Row], seed: int) -> Row:
    methods = average([row["methods"] for row in rows])
    return {"pairs": len(rows), "methods": methods, "exact": exact_means(rows, seed)}


def _prediction_measures(rows: Sequence[Row], means: Mapping[str, Row], seed: int) -> Row:
    subjects: dict[str, Row] = {}
    for role in ("source", "driving"):
        key = f"{role}_subject"
        subjects[role] = {
            name: exact_means([row for row in rows if row[key] == name], seed)
            for name in sorted({row[key] for row in rows})
        }
    return {"means": means["all"], "groups": means, "subjects": subjects, "pairs": rows}


def _tracking_mean(rows: Sequence[Row], seed: int) -> Row:
    subjects = [_subjects(row) for row in rows]
    holds = [row["errors"]["hold"] for row in rows]
    errors = average([row["errors"] for row in rows])
    return {
        "clips": len(rows),
        "errors": errors,
        "share": tracking.shares(errors),
        "ratio": {
            name: weighted_ratio(subjects, [row["errors"][name] for row in rows], holds, seed)
            for name in ("model", "flow")
        },
        "lost": finite_mean([row["lost"] for row in rows]),
    }


def _tracking_measures(rows: Sequence[Row], means: Mapping[str, Row], seed: int) -> Row:
    points: dict[str, Row] = {}
    for name in sorted({name for row in rows for name in row["points"]}):
        found = [row["points"][name] for row in rows if name in row["points"]]
        errors = average(found)
        points[name] = {"clips": len(found), "errors": errors, "share": tracking.shares(errors)}
    return {"means": means, "points": points, "clips": rows}


_SHARPNESS = Headline(
    "sharpness", "methods.{}.sharpness", "1 is as much fine detail as in the real frames"
)
_RECONSTRUCTION = [
    Headline("error", "methods.{}.l1_ratio", "0 is equal to the real frames, 1 is not moving"),
    Headline("coarse error", "methods.{}.low_pass_ratio", "the same without fine detail"),
    _SHARPNESS,
    Headline("motion", "methods.{}.farneback_agreement", "1 is that of the real frames, 0 is none"),
    Headline("leaks", "clips_leaking", "clips that show another subject's speckle", 0),
]
_PREDICTION = [
    Headline("skill", "exact.skill.{}", "0 is not moving at all, 1 is the true motion"),
    Headline("landmark error", "exact.landmark_ratio.mean", "0 is the true place, 1 is not moving"),
    _SHARPNESS,
]
_TRACKING = [
    Headline("error", "share.{}", "distance from the labels: 0 is none, 1 is not moving at all"),
    Headline("pixels", "errors.{}", "the same distance in pixels of the model's frame", 1),
    Headline("lost", "lost", "share of points that the model's motion leads nowhere"),
]
LAYOUTS = {
    "reconstruction": Layout(
        title="Reconstruction",
        what="Each clip animates its own middle frame.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}; Farneback {FARNEBACK}",
        notes=notes.RECONSTRUCTION,
        mean=_reconstruction_mean,
        measures=lambda rows, means, seed: {"means": means, "clips": rows},
        tables=[
            ("Means over clips", "means.all.methods.*", f"name {_FIDELITY}"),
            ("By group: the model", "means.*", f"name clips methods.model.{_FIDELITY} {_LEAKAGE}"),
            (
                "By clip",
                "clips.*",
                "clip group driven mean_flow methods.{model,blur,flow,oracle}.l1_ratio "
                "methods.{model,blur,flow}.low_pass_ratio methods.{model,blur,flow}.sharpness "
                "methods.{model,flow}.{motion_agreement,farneback_agreement} "
                "methods.{model,flow}.{temporal_ratio,temporal_correlation}",
            ),
            (
                "Leakage and plain measures, by clip",
                "clips.*",
                f"clip driver {_LEAKAGE} leakage.leaks methods.{{model,hold}}.{{l1,psnr,ssim}}",
            ),
            (
                "At the clips' own size, means over larger clips",
                "means.all.own_size.methods.*",
                "name sharpness l1_ratio",
            ),
            (
                "At the clips' own size, by clip",
                "clips.*",
                "clip own_size.{width,height,driven} "
                "own_size.methods.{composed,enlarged}.{sharpness,l1_ratio}",
            ),
            *_exact_tables("means.all.exact", "model,hold,blur,flow,oracle"),
            (
                "Against the exact field, by clip",
                "clips.*",
                f"clip exact.skill.{{model,blur,flow}} "
                f"exact.{{endpoint_error,endpoint_hold}} {_LANDMARKS}",
            ),
        ],
        headlines=_RECONSTRUCTION,
        high_is_bad=True,
        others=("hold", "blur", "flow", "oracle"),
    ),
    "prediction": Layout(
        title="Prediction",
        what="One subject's clip animates another subject's picture; the true result is known.",
        units="pairs",
        flow="exact field; DIS and Farneback for F(y->S)",
        notes=notes.PREDICTION,
        mean=_prediction_mean,
        measures=_prediction_measures,
        tables=[
            *_exact_tables("means.exact", "model,hold,blur,oracle,another_seed"),
            ("Fidelity, means over pairs", "means.methods.*", f"name {_FIDELITY}"),
            *(
                (
                    f"By {role} subject: the model",
                    f"subjects.{role}.*",
                    "name units skill.model landmark_ratio.mean endpoint_error endpoint_hold",
                )
                for role in ("source", "driving")
            ),
            (
                "By pair",
                "pairs.*",
                "pair aligned_by driven mean_flow exact.l1.{model,hold,blur,oracle,another_seed} "
                "exact.skill.{model,blur} exact.endpoint_error "
                f"methods.model.{{sharpness,motion_agreement,temporal_correlation}} {_LANDMARKS}",
            ),
        ],
        headlines=_PREDICTION,
        high_is_bad=False,
        others=("hold", "blur", "oracle", "another_seed"),
        intervals=[("skill", "exact.model_skill"), ("landmark error", "exact.landmark_ratio")],
    ),
    "tracking": Layout(
        title="Tracking",
        what="Labelled points of one frame are looked for in others by the model's motion.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}, from the source to the frame",
        notes=notes.TRACKING,
        mean=_tracking_mean,
        measures=_tracking_measures,
        tables=[
            ("Share of hold's error, over subjects", "means.all.ratio", "model flow"),
            ("By group", "means.*", f"name clips {_ERRORS} lost"),
            ("By point", "points.*", f"name clips {_ERRORS}"),
            ("By clip", "clips.*", f"clip group driven {_ERRORS} lost"),
        ],
        headlines=_TRACKING,
        high_is_bad=True,
        others=("hold", "flow"),
        intervals=[("error", "ratio.model")],
    ),
}
