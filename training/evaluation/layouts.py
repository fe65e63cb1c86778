"""Each task's report as data: tables, and the columns of the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import means, notes
from .loop import Row
from .metrics import FARNEBACK, FLOW_PRESET

_FIDELITY = (
    "{l1_ratio,low_pass_ratio,sharpness,motion_agreement,farneback_agreement,"
    "temporal_ratio,temporal_correlation,l1,psnr,ssim}"
)
_LEAKAGE = "leakage.{source,driving,floor}"
_LANDMARKS = "exact.landmark.{model,hold,oracle,truth} exact.landmark_ratio"
_BY_SUBJECT = "name units skill.model landmark_ratio.mean endpoint_error endpoint_hold"
_ERRORS = "errors.{model,hold,flow} share.{model,flow}"


class Headline(NamedTuple):
    """A column of the summary."""

    title: str
    path: str  # in the means; {} stands for the method, else only the model has the measure
    meaning: str  # for a reader who does not know the measure
    digits: int = 2


class Layout(NamedTuple):
    """How one task's rows are summed up and shown."""

    what: str  # the task in one sentence
    units: str  # what a row is, and the key of the rows in the record: clips, pairs
    flow: str  # where the flow comes from
    notes: str
    mean: Callable[[Sequence[Row], int], Row]  # over rows, with a seed for intervals
    more: Callable[[Sequence[Row], int], Row]  # the task's own keys of the record
    tables: Sequence[tuple[str, str, str]]  # heading, path of the rows, columns: see `tables`
    headlines: Sequence[Headline]  # groups are sorted by the first, the worst in front
    high_is_bad: bool
    intervals: Sequence[tuple[str, str]] = ()  # of the summary: titles, paths in the means


def _exact_tables(path: str, methods: str) -> list[tuple[str, str, str]]:
    columns = f"units model_skill {{skill,l1}}.{{{methods}}} {{endpoint_error,endpoint_hold}}"
    landmarks = "name {model,hold,oracle,truth}"
    return [
        ("Against the exact field", path, f"{columns} landmark_ratio"),
        ("Landmarks: mean error in pixels", f"{path}.landmarks.*", landmarks),
    ]


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
        what="Each clip animates its own middle frame.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}; Farneback {FARNEBACK}",
        notes=notes.RECONSTRUCTION,
        mean=means.over_clips,
        more=lambda rows, seed: {},
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
    ),
    "prediction": Layout(
        what="One subject's clip animates another subject's picture; the true result is known.",
        units="pairs",
        flow="exact field; DIS and Farneback for F(y->S)",
        notes=notes.PREDICTION,
        mean=means.over_pairs,
        more=means.by_subject,
        tables=[
            *_exact_tables("means.exact", "model,hold,blur,oracle,another_seed"),
            ("Fidelity, means over pairs", "means.methods.*", f"name {_FIDELITY}"),
            ("By source subject: the model", "subjects.source.*", _BY_SUBJECT),
            ("By driving subject: the model", "subjects.driving.*", _BY_SUBJECT),
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
        intervals=[("skill", "exact.model_skill"), ("landmark error", "exact.landmark_ratio")],
    ),
    "tracking": Layout(
        what="Labelled points of one frame are looked for in others by the model's motion.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}, from the source to the frame",
        notes=notes.TRACKING,
        mean=means.over_tracks,
        more=means.by_point,
        tables=[
            ("Share of hold's error, over subjects", "means.all.ratio", "model flow"),
            ("By group", "means.*", f"name clips {_ERRORS} lost"),
            ("By point", "points.*", f"name clips {_ERRORS}"),
            ("By clip", "clips.*", f"clip group driven {_ERRORS} lost"),
        ],
        headlines=_TRACKING,
        high_is_bad=True,
        intervals=[("error", "ratio.model")],
    ),
}
