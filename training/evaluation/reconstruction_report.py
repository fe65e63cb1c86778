"""The report of reconstructions: means by method and group, every clip, leakage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...runtime.compose import MOST_SIDE
from .metrics import FARNEBACK, FLOW_PRESET, MOVING_PIXELS, Leakage
from .own_size import METHODS as SIZED
from .own_size import MOST_FRAMES
from .reconstruction import METHODS, ORACLE, ClipResult, OwnSize
from .report import Report, by_group, plain
from .summary import mean_methods, mean_of, summarise, summary_parts
from .tables import by_method, fidelity, landmarks, measured, method_table, number, table

LEAK_LEVEL = 0.1
"""A clip leaks when the driving frame's speckle shows in the result this much above the floor."""

_NOTES = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out): absolute motion, or
relative to the middle frame itself where the model has no absolute motion (`own_motion` above).
Repeated frames are dropped. Sums run over frames and over the pixels where the clip's mean exceeds
0.03; means run over the clips for which a measure is defined. `hold`: the source as it is; `best
blur`: the source, Gaussian-blurred by the sigma that fits the clip best; `dense flow`: the source
warped by OpenCV's DIS flow ({FLOW_PRESET}). The last two see the target. `oracle`: the
source warped by the exact field, on the clips that have one (displacement/ of a phantom).

- L1 ratio: sum |y - x| / sum |S - x|; low-pass: the same after a Gaussian blur of 4 px. Lower is
  better, hold is 1.
- sharpness: std(y - G2 y) / std(x - G2 x); 1 is as sharp as real frames.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)| over forward-backward-consistent
  pixels, clips with a mean flow above {MOVING_PIXELS:g} px. 1 is the same motion, hold is 0. By
  DIS, which is circular for a model that learned from DIS; and by Farneback's flow (OpenCV), from
  which no model learned. Both count only beside the error of labelled points: --task tracking.
- temporal: ratio of the standard deviations and correlation of G3 of frame differences, y's and
  x's. With --max-frames these are differences of the thinned clip, not of neighbours.
- L1, PSNR, SSIM: all pixels, [0, 1], per frame, then per clip.
- leakage: another subject's clip drives, relative motion. Correlation of the high-passed result
  with the high-passed warped source (should be high) and with the high-passed driving frame
  (should be no more than the floor, which is the warped source's own correlation with it). A clip
  leaks from {LEAK_LEVEL:g} above the floor.
- own size: of clips larger than the model's frame (up to {MOST_SIDE} pixels a side), the middle
  frame at its own size driven by at most {MOST_FRAMES} others. `composed` is the frame composed
  over the source at that size (models with layers), `enlarged` the model's frame enlarged to it,
  bicubic. L1 ratio and sharpness as above, against the real frames at their own size, the Gaussian
  of sharpness 2 of THEIR pixels.
- exact field: skill is (L1 of hold - L1) / (L1 of hold - L1 of the oracle) inside of the sector;
  endpoint error is that of the model's deformation; landmarks are followed from the middle frame in
  both directions by a tracker that does not know the model, its own error is that on true frames.
"""


def leaks(leakage: Leakage) -> bool:
    """Whether the driving speckle shows: LEAK_LEVEL above the floor, or more than the source's."""
    return leakage.driving - leakage.floor > LEAK_LEVEL or leakage.driving >= leakage.source


_LEAKAGE = [
    ("NCC source", "leakage.source", 3),
    ("NCC driving", "leakage.driving", 3),
    ("floor", "leakage.floor", 3),
]
_BY_GROUP = [("group", "group"), ("clips", "clips"), *fidelity("methods.model."), *_LEAKAGE]
_BY_CLIP = [
    *[("clip", "clip"), ("group", "group"), ("frames", "driven"), ("flow px", "mean_flow", 1)],
    *measured(("model", "blur", "flow", ORACLE), "l1_ratio"),
    *measured(("model", "blur", "flow"), "low_pass_ratio", "sharpness"),
    *measured(("model", "flow"), "motion_agreement", "farneback_agreement"),
    *measured(("model", "flow"), "temporal_ratio", "temporal_correlation"),
]
_LEAKAGE_BY_CLIP = [
    *[("clip", "clip"), ("driven by", "driver"), *_LEAKAGE, ("leaks", "leakage.leaks")],
    *measured(("model", "hold"), "l1", "psnr", "ssim"),
]
_OWN_SIZE = [("sharpness", "sharpness", 3), ("L1 ratio", "l1_ratio", 3)]
_OWN_SIZE_BY_CLIP = [
    *[("clip", "clip"), ("size", "size"), ("frames", "driven")],
    *[(f"{title} {m}", f"methods.{m}.{name}", n) for title, name, n in _OWN_SIZE for m in SIZED],
]
_EXACT_BY_CLIP = [
    ("clip", "clip"),
    *by_method("skill", "exact.skill.{}", ("model", "blur", "flow")),
    *[("endpoint px", "exact.endpoint_error", 2), ("hold", "exact.endpoint_hold", 2)],
    *landmarks("exact.landmark.", "exact.landmark_ratio", "landmarks "),
]


class ReconstructionReport(Report):
    """The report of ClipResults."""

    title = "Reconstruction"
    flow = f"OpenCV DIS, preset {FLOW_PRESET}; Farneback {FARNEBACK}"
    notes = _NOTES

    @cached_property
    def _means(self) -> list[tuple[str, dict[str, Any]]]:
        """Of all clips, then of each group."""
        seed = self.settings["seed"]
        return [(name, plain(_mean_record(rows, seed))) for name, rows in by_group(self.results)]

    def measures(self) -> dict[str, Any]:
        """Means over all clips and by group, every clip, what was left out."""
        return {
            "means": dict(self._means),
            "clips": [{**vars(r), "leakage": _leakage_record(r.leakage)} for r in self.results],
            "left_out": [{"clip": clip, "reason": reason} for clip, reason in self.left_out],
        }

    def tables(self) -> list[str]:
        """Means by method and by group, every clip."""
        means, clips = self._means[0][1], self.record["clips"]
        methods = {name: means["methods"].get(name, {}) for name in (*METHODS, ORACLE)}
        groups = [{"group": group, **row} for group, row in self._means]
        parts = [
            *("## Means over clips", method_table(fidelity(), methods)),
            *("## By group: the model", table(_BY_GROUP, groups)),
            *("## By clip", table(_BY_CLIP, clips)),
            *("## Leakage and plain measures, by clip", table(_LEAKAGE_BY_CLIP, clips)),
        ]
        if sized := means["own_size"]:
            rows = [{**clip, **clip["own_size"]} for clip in clips if clip["own_size"]]
            rows = [{**row, "size": "{width} x {height}".format_map(row)} for row in rows]
            parts.append(f"## At the clips' own size: {sized['clips']} above the model's")
            parts.append(method_table(_OWN_SIZE, sized["methods"]))
            parts.append(table(_OWN_SIZE_BY_CLIP, rows))
        if exact := means["exact"]:
            parts += ["## Against the exact field", *summary_parts(exact)]
            parts.append(table(_EXACT_BY_CLIP, clips))
        return parts

    def summary_line(self) -> str:
        means = self._means[0][1]
        model = {name: number(value) for name, value in means["methods"]["model"].items()}
        tested = sum(result.leakage is not None for result in self.results)
        count = len(means["leaking"])
        leaking = f"leaks in {count} of {tested}" if count else "no leakage"
        return (
            f"{len(self.results)} clips: L1 ratio {model['l1_ratio']} (hold 1, dense flow "
            f"{number(means['methods']['flow']['l1_ratio'])}), low-pass {model['low_pass_ratio']}, "
            f"sharpness {model['sharpness']}, motion agreement {model['motion_agreement']}, "
            f"{leaking if tested else 'leakage not tested (one subject)'}"
        )


def _mean_record(results: Sequence[ClipResult], seed: int) -> dict[str, Any]:
    tested = [(result.clip, result.leakage) for result in results if result.leakage is not None]
    return {
        "clips": len(results),
        "methods": mean_methods(results),
        "leakage": _leakage_record(mean_of([leakage for _, leakage in tested])),
        "leaking": [clip for clip, leakage in tested if leaks(leakage)],
        "exact": summarise(results, seed),
        "own_size": _own_size_record([r.own_size for r in results if r.own_size is not None]),
    }


def _own_size_record(found: Sequence[OwnSize]) -> dict[str, Any] | None:
    return {"clips": len(found), "methods": mean_methods(found)} if found else None


def _leakage_record(leakage: Leakage | None) -> dict[str, Any] | None:
    return None if leakage is None else {**leakage._asdict(), "leaks": leaks(leakage)}
