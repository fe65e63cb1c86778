"""The report of tracking: errors by method, by group, by point, every clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from .intervals import DRAWS, LEVEL, weighted_ratio
from .metrics import FLOW_PRESET, finite_mean, ratio
from .report import Report, by_group, plain
from .tables import METHODS as TITLES
from .tables import bullets, by_method, interval, number, table
from .tracking import METHODS, TrackingResult

_NOTES = f"""\
Source and reference are the middle one of a clip's labelled frames (n // 2 of them). Each of the
other labelled frames drives, with the motion that `own_motion` above names. The model's deformation
says where a frame reads in the source: a labelled point p of the source is found at z with
deformation(z) = p (Newton's method on the bilinear interpolant). No picture is looked at: this is
the measure of motion that sharpness, shading and learning from a dense flow cannot please.

- error: distance of what was found from the frame's own label, in pixels of the model's frame; the
  mean over a frame's points, then over frames, then over clips.
- `hold`: every point stays. `dense flow`: OpenCV's DIS ({FLOW_PRESET}) from the source to the
  frame, read at the point; it sees both frames whole.
- share: mean error over hold's mean error; 1 is no better than no motion at all.
- lost: share of the points that the deformation reads nowhere in the frame; the pixel that reads
  nearest to the point stands for it.
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; none below
  3 subjects.
"""

_ERRORS = by_method("model px", "errors.{}", METHODS, 2)
_SHARES = [("model / hold", "share.model", 3), ("dense flow / hold", "share.flow", 3)]
_BY_GROUP = [("group", "group"), ("clips", "clips"), *_ERRORS, *_SHARES, ("lost", "lost", 3)]
_BY_POINT = [("point", "point"), ("clips", "clips"), *_ERRORS, *_SHARES]
_BY_CLIP = [("clip", "clip"), ("group", "group"), ("frames", "driven"), *_BY_GROUP[2:]]


class TrackingReport(Report):
    """The report of TrackingResults."""

    title = "Tracking"
    flow = f"OpenCV DIS, preset {FLOW_PRESET}, from the source to the frame"
    notes = _NOTES

    @cached_property
    def _means(self) -> list[tuple[str, dict[str, Any]]]:
        """Of all clips, then of each group."""
        seed = self.settings["seed"]
        return [(name, plain(_mean_record(rows, seed))) for name, rows in by_group(self.results)]

    def measures(self) -> dict[str, Any]:
        """Means over all clips and by group, by point, every clip, what was left out."""
        names = sorted({name for result in self.results for name in result.points})
        points = {
            name: _errors([r.points[name] for r in self.results if name in r.points])
            for name in names
        }
        return {
            "means": dict(self._means),
            "points": points,
            "clips": [{**vars(r), "share": _share(r.errors)} for r in self.results],
            "left_out": [{"clip": clip, "reason": reason} for clip, reason in self.left_out],
        }

    def tables(self) -> list[str]:
        """All clips, by group, by point, every clip."""
        means = self._means[0][1]
        facts = [
            f"{TITLES.get(name, name)}: {number(means['errors'][name], 2)} px"
            + (f", {interval(means['ratio'][name])} of hold's" if name != "hold" else "")
            for name in METHODS
        ]
        groups = [{"group": group, **row} for group, row in self._means]
        points = [{"point": name, **row} for name, row in self.record["points"].items()]
        return [
            f"## Error of labelled points: {len(self.results)} clips",
            bullets(facts),
            *("## By group", table(_BY_GROUP, groups)),
            *("## By point", table(_BY_POINT, points)),
            *("## By clip", table(_BY_CLIP, self.record["clips"])),
        ]

    def summary_line(self) -> str:
        means, clips = self._means[0][1], len(self.results)
        errors = {name: number(value, 2) for name, value in means["errors"].items()}
        return (
            f"{clips} clip{'s' * (clips != 1)}: error of labelled points {errors['model']} px, "
            f"{interval(means['ratio']['model'])} of hold's (hold {errors['hold']}, dense flow "
            f"{errors['flow']})"
        )


def _mean_record(results: Sequence[TrackingResult], seed: int) -> dict[str, Any]:
    subjects = [result.subjects for result in results]
    holds = [result.errors["hold"] for result in results]
    moving = [name for name in METHODS if name != "hold"]
    return {
        **_errors([result.errors for result in results]),
        "ratio": {
            name: weighted_ratio(subjects, [r.errors[name] for r in results], holds, seed)
            for name in moving
        },
        "lost": finite_mean([result.lost for result in results]),
    }


def _errors(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    errors = {name: finite_mean([row[name] for row in rows]) for name in METHODS}
    return {"clips": len(rows), "errors": errors, "share": _share(errors)}


def _share(errors: dict[str, float]) -> dict[str, float]:
    return {name: ratio(error, errors["hold"]) for name, error in errors.items()}
