"""The report of a study as Markdown."""

from __future__ import annotations

from ..markdown import bullets, grid
from .analysis import Record
from .study_folder import REAL, SCALE

READING = (
    "Mean: of all ratings of an arm, 1 worst to 5 best. Each clip counts the first time that a "
    "rater saw it.",
    "In brackets: 95 % interval by a bootstrap that draws raters and cases. It says how far the "
    "mean may lie off for other raters and cases like these.",
    "Difference: on average over the same raters and cases. Only if its interval leaves out 0, one "
    "arm is rated higher.",
    "Told apart: 50 % is guessing, 100 % is always right. An interval that holds 50 % does not "
    "prove that nobody can tell the arms apart: there may just be too few answers.",
    "Alpha, ICC: 1 is full agreement, 0 is chance. Below 0.67 alpha carries hardly any conclusion "
    "(Krippendorff). All are low too where all clips are about equally good.",
    "For training and simulation only; not a medical device.",
)


def markdown(record: Record) -> str:
    """All of a record."""
    parts = ["# Reader study", f"Question: {record['question']}", *_ratings(record)]
    if (asked := record["real_or_fake"]) is not None:
        called = [[arm, _estimate(each, share=True)] for arm, each in asked["called_real"].items()]
        apart = [
            [f"{REAL}, {arm}", _estimate(each, share=True)]
            for arm, each in asked["told_apart"].items()
        ]
        parts += ["## Real or synthetic", grid(["arm", "called real"], called)]
        parts += [grid(["arms", "told apart"], apart)] if apart else []
    parts += ["## Agreement", bullets(_agreement(record))]
    parts += ["## Raters", _raters(record)]
    if record["comments"]:
        rows = [
            [each["rater"], each["arm"], each["case"], _plain(each["rating"]), each["comment"]]
            for each in record["comments"]
        ]
        parts += ["## Comments", grid(["rater", "arm", "case", "rating", "comment"], rows)]
    if record["notes"]:
        parts += ["## Note", bullets(record["notes"])]
    return "\n\n".join([*parts, "## How to read it", bullets(READING)]) + "\n"


def _ratings(record: Record) -> list[str]:
    rows = [
        [arm, _estimate(each), *map(str, each["counts"]), str(each["missing"]), str(each["clips"])]
        for arm, each in record["arms"].items()
    ]
    head = ["arm", "mean", *(f"rated {level}" for level in SCALE), "not rated", "clips"]
    differences = [
        [f"{each['arms'][0]} - {each['arms'][1]}", _estimate(each), str(each["count"])]
        for each in record["differences"]
    ]
    unit = "pairs" if record["settings"]["matched"] else "ratings"
    return ["## Ratings", grid(head, rows), grid(["arms", "difference", unit], differences)]


def _agreement(record: Record) -> list[str]:
    found, repeats = record["agreement"], record["repeats"]
    by_all = f"{found['clips_rated_by_all']} of {found['clips']} clips rated by all"
    lines = [
        f"Krippendorff's alpha, ordinal: {_measured(found['alpha'])}",
        f"ICC(2,1), one rater: {_measured(found['icc_2_1'])} ({by_all})",
        f"ICC(2,k), mean of these raters: {_measured(found['icc_2_k'])}",
    ]
    if repeats["why"]:
        return [*lines, f"the same rater again: not known ({repeats['why']})"]
    return [
        *lines,
        f"the same rater again ({repeats['rated']} of {repeats['shown']} hidden repeats rated): "
        f"same rating {repeats['same']:.0%}, at most one apart {repeats['within_one']:.0%}, "
        f"change on average {repeats['mean_change']:+.2f}, alpha {_measured(repeats['alpha'])}",
    ]


def _raters(record: Record) -> str:
    rows = [
        [
            each["rater"],
            str(each["order"]),
            f"{each['rated']} of {each['clips']}",
            f"{each['repeats_rated']} of {each['repeats']}",
            "-" if each["median_seconds"] is None else f"{each['median_seconds']:.1f}",
        ]
        for each in record["raters"]
    ]
    return grid(["rater", "order", "clips rated", "repeats rated", "median seconds"], rows)


def _estimate(found: Record, share: bool = False) -> str:
    """A mean, its interval in brackets, and what is to be said about them."""
    if found["mean"] is None:
        return f"- ({found['why']})"
    ends = [found[name] for name in ("mean", "low", "high")]
    texts = [None if end is None else f"{end:.0%}" if share else f"{end:.2f}" for end in ends]
    text = texts[0] if texts[1] is None else f"{texts[0]} [{texts[1]}, {texts[2]}]"
    return f"{text} ({found['why']})" if found["why"] else str(text)


def _measured(found: Record) -> str:
    return f"not defined ({found['why']})" if found["value"] is None else f"{found['value']:.2f}"


def _plain(value: object) -> str:
    return "-" if value is None else str(value)
