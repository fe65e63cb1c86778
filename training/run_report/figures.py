"""Which curves a report shows, of one run or of several beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .charts import Series, chart
from .records import Run, curve_of

RATIO = "l1 as a share of hold"
_MEANINGS = {
    "l1": "mean absolute error, [0, 1]: of the prediction; of a picture that stands still",
    "displacement": "length in pixels of 256",
    "spread": "distance of keypoints from their middle, pixels of 256",
    "closest": "greatest distance of the two nearest keypoints, pixels of 256",
    "determinant": "smallest abs(det) of a keypoint's jacobian",
    "occlusion": "mean of the map; 1: all of the source is used",
    "gate": "mean; 1: all of the texture",
}


def learning(runs: Sequence[Run]) -> list[str]:
    """Charts that say whether a model learns: its error, and what it does with the probe."""
    return [*filter(None, (*_prediction(runs), *_probe(runs)))]


def losses(runs: Sequence[Run]) -> list[str]:
    """A chart for each loss."""
    return [_loss(runs, name) for name in dict.fromkeys(n for run in runs for n in run.losses)]


def pace(runs: Sequence[Run]) -> list[str]:
    """Learning rate and time."""
    titles = {"rate": "learning rate", "seconds_per_step": "seconds per step",
              "waiting": "share of the time waiting for data"}  # fmt: skip
    charts = (
        chart(title, _series(runs, name, title), smooth=name != "rate", logarithmic=name != "rate")
        for name, title in titles.items()
    )
    return [*filter(None, charts)]


def _series(runs: Sequence[Run], name: str, label: str, dashed: bool = False) -> list[Series]:
    """A figure of the log. Of a single run the figures have colours, else the runs."""
    return [
        Series(
            label if len(runs) == 1 else f"{run.label}{', hold' if dashed else ''}",
            *run.curve(name),
            "var(--c1)" if len(runs) == 1 and dashed else f"var(--c{i % 6})",
            dashed,
        )
        for i, run in enumerate(runs)
    ]


def _prediction(runs: Sequence[Run]) -> Iterator[str]:
    series = [*_series(runs, "l1", "l1"), *_series(runs, "hold", "hold", dashed=True)]
    yield chart("l1 beside hold", series, _MEANINGS["l1"])
    ratios = []
    for i, run in enumerate(runs):
        (steps, l1), (places, hold) = run.curve("l1"), run.curve("hold")
        both, here, there = np.intersect1d(steps, places[hold > 0], return_indices=True)
        share = l1[here] / hold[hold > 0][there]
        label = RATIO if len(runs) == 1 else run.label
        ratios.append(Series(label, both, share, f"var(--c{i % 6})"))
    yield chart(RATIO, ratios, "below 1 is a gain", {"standing still": 1.0})


def _loss(runs: Sequence[Run], name: str) -> str:
    (weight, *others) = {run.setting("loss.adversarial") or 0.0 for run in runs}
    marks = {  # the values of LSGAN
        "discriminator": {"tells nothing apart": 0.5, "tells all apart": 0.0},
        "adversarial": {"discriminator is sure": weight, "undecided": weight / 4},
    }.get(name)
    title = name.replace("_", " ")
    return chart(title, _series(runs, name, title), marks=None if others else marks)


def _probe(runs: Sequence[Run]) -> Iterator[str]:
    one = len(runs) == 1

    def drawn(title: str, parts: Mapping[str, tuple[str, int | None]], meaning: str) -> str:
        series = [
            Series(
                (label or title) if one else f"{run.label}{f' {label}' if label else ''}",
                *curve_of(run.probes, name, place),
                f"var(--c{(j if one else i) % 6})",
                not one and j > 0,
            )
            for i, run in enumerate(runs)
            for j, (label, (name, place)) in enumerate(parts.items())
        ]
        log = meaning == "displacement"
        return chart(title, series, _MEANINGS[meaning], smooth=False, logarithmic=log)

    both = {"mean": ("displacement_mean", None), "max": ("displacement_max", None)}
    yield drawn("displacement", both, "displacement")
    yield drawn("spread of keypoints", {"": ("spread", None)}, "spread")
    yield drawn("nearest two keypoints", {"": ("closest", 2)}, "closest")
    yield drawn("jacobians", {"": ("determinant", 1)}, "determinant")
    yield drawn("occlusion map", {"": ("occlusion", None)}, "occlusion")
    yield drawn("gate", {"": ("gate", None)}, "gate")
