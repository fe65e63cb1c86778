"""The report of predictions: against the truth, fidelity, by subject, every pair."""

from __future__ import annotations

from typing import Any

from .intervals import DRAWS, LEVEL
from .metrics import MOVING_PIXELS
from .prediction import METHODS
from .report import Report
from .summary import mean_methods, summarise, summary_parts
from .tables import by_method, fidelity, interval, landmarks, measured, method_table, number, table

_NOTES = f"""\
Frame 0 of A's clip is animated by B's clip, relative to B's frame 0, scale 1, no smoothing; every
frame, the first too, is compared with the true prediction: A moved as B moves, without noise. A
model that can align reads the motion of a place where the other anatomy has that place; `aligned
by` says how it knows: by landmarks of both first frames, the true ones (--alignment given,
landmarks) or those of its own detector (auto), and by matching these two pictures.
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
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)| with F(y->S) measured (by
  OpenCV's DIS, and by Farneback's flow) and F(x->S) EXACT, over the pixels whose tissue the
  source's sector shows, pairs with a mean field above {MOVING_PIXELS:g} px. It
  is stricter than that of a reconstruction, where both are measured; the oracle shows what the
  measurement reaches.
- L1 ratio, low-pass, sharpness, temporal: as for a reconstruction, over the sector. L1, PSNR, SSIM:
  all pixels.
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; a pair
  weighs the product of how often its source and its driving subject were drawn.
"""

_BY_SUBJECT = [
    *[("subject", "subject"), ("as", "role"), ("pairs", "units"), ("skill", "skill.model", 3)],
    ("landmark ratio", "landmark_ratio.mean", 3),
    *[("endpoint px", "endpoint_error", 2), ("hold", "endpoint_hold", 2)],
]
_BY_PAIR = [
    *[("pair", "pair"), ("aligned by", "aligned_by"), ("frames", "driven")],
    ("field px", "mean_flow", 1),
    *by_method("L1", "exact.l1.{}", METHODS, 4),
    *by_method("skill", "exact.skill.{}", ("model", "blur")),
    ("endpoint px", "exact.endpoint_error", 2),
    *measured(["model"], "sharpness", "motion_agreement", "temporal_correlation"),
    *landmarks("exact.landmark.", "exact.landmark_ratio", "landmarks "),
]


class PredictionReport(Report):
    """The report of PairResults."""

    title = "Prediction"
    flow = "exact field; DIS and Farneback for F(y->S)"
    notes = _NOTES

    def measures(self) -> dict[str, Any]:
        """Means over all pairs, over those of each subject in either role, and every pair."""
        pairs = [dict(vars(result)) for result in self.results]
        subjects: dict[str, dict[str, Any]] = {"source": {}, "driving": {}}
        for place, found in enumerate(subjects.values()):
            for name in sorted({result.subjects[place] for result in self.results}):
                rows = [result for result in self.results if result.subjects[place] == name]
                found[name] = summarise(rows, self.settings["seed"])
        for pair in pairs:
            pair["source_subject"], pair["driving_subject"] = pair.pop("subjects")
        return {
            "means": {
                "pairs": len(pairs),
                "methods": mean_methods(self.results),
                "exact": summarise(self.results, self.settings["seed"]),
            },
            "subjects": subjects,
            "pairs": pairs,
        }

    def tables(self) -> list[str]:
        """Against the exact field, fidelity, by subject, every pair."""
        means, pairs = self.record["means"], self.record["pairs"]
        subjects = [
            {"subject": name, "role": role, **summary}
            for role, found in self.record["subjects"].items()
            for name, summary in found.items()
        ]
        return [
            f"## Against the truth: {len(pairs)} pairs",
            *summary_parts(means["exact"]),
            *("## Fidelity, means over pairs", method_table(fidelity(), means["methods"])),
            *("## By subject: the model", table(_BY_SUBJECT, subjects)),
            *("## By pair", table(_BY_PAIR, pairs)),
        ]

    def summary_line(self) -> str:
        exact, pairs = self.record["means"]["exact"], len(self.results)
        l1 = {name: number(value, 4) for name, value in exact["l1"].items()}
        return (
            f"{pairs} pair{'s' * (pairs != 1)}: skill {interval(exact['model_skill'])} (hold 0, "
            f"best blur {number(exact['skill']['blur'])}, oracle 1), landmark error "
            f"{interval(exact['landmark_ratio'])} of hold's, L1 {l1['model']} (hold {l1['hold']}, "
            f"oracle {l1['oracle']}, another seed {l1['another_seed']})"
        )
