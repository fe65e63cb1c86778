"""From answers and key to the numbers of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.errors import InputError
from .agreement import NotDefined, intraclass_correlation, krippendorff_alpha
from .answers import Answer, Sheet, answers_file, raters_of, read_sheet
from .intervals import DRAWS, LEAST_RATERS, LEVEL, Draws, Values
from .study_folder import REAL, SCALE, Coded, Key, Study, read_key, read_study

Record = dict[str, Any]
FEW_RATERS = 6
"""Below so many, intervals over raters can be too narrow (docs/study.md has what was seen)."""


def analyse(folder: Path, key_file: Path) -> Record:
    """What came out of a study, as plain JSON types; None, with a reason, for what is not defined.

    The first time that a rater saw a clip counts; second times serve intra-rater agreement alone.

    Raises:
        InputError: no study, a key that is not the study's, answers that do not fit, no answers.
    """
    study = read_study(folder)
    sheets = [read_sheet(answers_file(folder, name), study) for name in raters_of(folder)]
    if not sheets:
        hint = "`sonomime study serve` writes them"
        raise InputError(f"{folder / 'answers'}: there are no answers yet", hint)
    for one, other in combinations(sheets, 2):
        if (one.order, one.answers) == (other.order, other.answers) and any(one.answers):
            fault = f"{answers_file(folder, other.rater)} is a copy of {one.rater}'s answers"
            raise InputError(fault, "remove it, or the rater would count twice")
    key = read_key(key_file, study)
    first, second = zip(*(_times(study, sheet) for sheet in sheets), strict=True)
    clips = list(key.clips)
    rating = _matrix(first, clips, lambda answer: answer.rating)
    cases = sorted({coded.case for coded in clips})
    draws = Draws.of(len(sheets), len(cases))
    by_arm = {arm: _by_case(rating, clips, cases, arm) for arm in key.arms}
    record = {
        "format": 1,
        "question": study.question,
        "settings": {"level": LEVEL, "draws": DRAWS, "matched": key.matched, "cases": len(cases)},
        "raters": [_rater(study, sheet) for sheet in sheets],
        "planned_raters": len(study.orders),
        "arms": {arm: _arm(draws, values, clips, arm) for arm, values in by_arm.items()},
        "differences": [
            {"arms": [a, b], **_difference(draws, by_arm[a], by_arm[b], key.matched)}
            for a, b in combinations(key.arms, 2)
        ],
        "agreement": _agreement(rating),
        "repeats": _repeats(first, second),
        "real_or_fake": _real_or_fake(draws, first, key, cases) if study.real_or_fake else None,
        "comments": _comments(study, sheets, key),
    }
    return record | {"notes": _notes(record, sheets)}


def _times(study: Study, sheet: Sheet) -> tuple[dict[str, Answer], dict[str, Answer]]:
    """The answers to each clip when it was shown for the first, and for the second time."""
    first, second = dict[str, Answer](), dict[str, Answer]()
    for clip, answer in zip(study.orders[sheet.order - 1], sheet.answers, strict=True):
        (second if clip in first else first)[clip] = answer
    return first, second


def _matrix(
    answers: Sequence[dict[str, Answer]],
    clips: Sequence[Coded],
    what: Callable[[Answer], float | None],
) -> Values:
    """(raters, clips) of something about the answers."""
    rows = [[what(each[coded.clip]) for coded in clips] for each in answers]
    return np.array(rows, np.float64)  # None becomes nan


def _by_case(
    values: Values, clips: Sequence[Coded], cases: Sequence[str], arm: str
) -> NDArray[np.float64]:
    """(raters, cases) of an arm."""
    found = np.full((len(values), len(cases)), np.nan)
    for column, coded in enumerate(clips):
        if coded.arm == arm:
            found[:, cases.index(coded.case)] = values[:, column]
    return found


def _arm(draws: Draws, values: Values, clips: Sequence[Coded], arm: str) -> Record:
    number = sum(coded.arm == arm for coded in clips)
    counts = [int((values == level).sum()) for level in SCALE]
    missing = number * len(values) - sum(counts)
    return {"clips": number, **asdict(draws.mean(values)), "counts": counts, "missing": missing}


def _difference(draws: Draws, one: Values, other: Values, matched: bool) -> Record:
    """Of the same raters and cases, where the arms share these."""
    return asdict(draws.mean(one - other) if matched else draws.difference(one, other))


def _measure(compute: Callable[[], Any]) -> Record:
    try:
        return {"value": compute(), "why": ""}
    except NotDefined as error:
        return {"value": None, "why": str(error)}


def _agreement(rating: Values) -> Record:
    """Between raters, on all clips together."""
    whole = rating[:, np.isfinite(rating).all(axis=0)]

    def alpha() -> float:
        if len(rating) < 2:
            raise NotDefined("it takes two raters")
        return krippendorff_alpha(rating)

    return {
        "alpha": _measure(alpha),
        "icc_2_1": _measure(lambda: intraclass_correlation(whole)[0]),
        "icc_2_k": _measure(lambda: intraclass_correlation(whole)[1]),
        "clips_rated_by_all": whole.shape[1],
        "clips": rating.shape[1],
    }


def _repeats(first: Sequence[dict[str, Answer]], second: Sequence[dict[str, Answer]]) -> Record:
    """Of each rater's two ratings of a clip, all pairs together."""
    pairs = np.array(
        [
            (earlier[clip].rating, later[clip].rating)
            for earlier, later in zip(first, second, strict=True)
            for clip in later
        ],
        np.float64,
    ).reshape(-1, 2)
    rated = pairs[np.isfinite(pairs).all(axis=1)]
    change = rated[:, 1] - rated[:, 0]
    found: Record = {"shown": len(pairs), "rated": len(rated)}
    if not len(rated):
        reason = "no clip was rated twice" if len(pairs) else "no clip is shown twice"
        return found | {"why": reason}
    return found | {
        "same": float((change == 0).mean()),
        "within_one": float((np.abs(change) <= 1).mean()),
        "mean_change": float(change.mean()),
        "alpha": _measure(lambda: krippendorff_alpha(rated.T)),
        "why": "",
    }


def _real_or_fake(
    draws: Draws, first: Sequence[dict[str, Answer]], key: Key, cases: Sequence[str]
) -> Record:
    """Share of each arm that was called real; how often real and synthetic were told apart."""
    said = _matrix(first, key.clips, lambda answer: answer.real)
    called = {arm: _by_case(said, key.clips, cases, arm) for arm in key.arms}
    return {
        "called_real": {arm: asdict(draws.mean(values)) for arm, values in called.items()},
        # (share of the real called real + share of the synthetic called synthetic) / 2
        "told_apart": {
            arm: _accuracy(draws, called[REAL], values)
            for arm, values in called.items()
            if arm != REAL
        },
    }


def _accuracy(draws: Draws, real: Values, synthetic: Values) -> Record:
    found = asdict(draws.difference(real, synthetic))
    for name in ("mean", "low", "high"):
        found[name] = None if found[name] is None else (1 + found[name]) / 2
    return found


def _rater(study: Study, sheet: Sheet) -> Record:
    first, second = _times(study, sheet)
    seconds = [answer.seconds for answer in sheet.answers if answer.rating is not None]
    return {
        "rater": sheet.rater,
        "order": sheet.order,
        "rated": sum(answer.rating is not None for answer in first.values()),
        "clips": len(first),
        "repeats_rated": sum(answer.rating is not None for answer in second.values()),
        "repeats": len(second),
        "median_seconds": float(np.median(seconds)) if seconds else None,
    }


def _comments(study: Study, sheets: Sequence[Sheet], key: Key) -> list[Record]:
    coded = {each.clip: each for each in key.clips}
    return [
        {"rater": sheet.rater, "arm": coded[clip].arm, "case": coded[clip].case,
         "rating": answer.rating, "comment": answer.comment}
        for sheet in sheets
        for clip, answer in zip(study.orders[sheet.order - 1], sheet.answers, strict=True)
        if answer.comment
    ]  # fmt: skip


def _notes(record: Record, sheets: Sequence[Sheet]) -> list[str]:
    """What limits the numbers."""
    notes, raters = [], record["raters"]
    planned = record["planned_raters"]
    if len(raters) < planned:
        notes.append(f"{planned} raters were planned, {len(raters)} have answered")
    for each in raters:
        gone = each["clips"] - each["rated"], each["repeats"] - each["repeats_rated"]
        if any(gone):
            notes.append(f"{each['rater']} has not rated {gone[0]} clips and {gone[1]} repeats")
    shared = defaultdict[int, list[str]](list)
    for sheet in sheets:
        shared[sheet.order].append(sheet.rater)
    for order, names in shared.items():
        if len(names) > 1:
            notes.append(f"{' and '.join(names)} saw the clips in the same order ({order})")
    if any(arm["missing"] for arm in record["arms"].values()):
        notes.append(
            "missing answers are left out, not filled in; differences of matched arms take only "
            "the cases that a rater has rated in both; ICC takes only clips that all have rated"
        )
    if not record["settings"]["matched"]:
        notes.append("the arms show different cases: differences are also differences of cases")
    if len(raters) < LEAST_RATERS:
        notes.append("with so few raters nothing here speaks for other raters")
    elif len(raters) < FEW_RATERS:
        notes.append(f"{len(raters)} raters are few: the intervals may be too narrow")
    return notes
