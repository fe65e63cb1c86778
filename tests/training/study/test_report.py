"""Agreement, intervals and the report: published examples, studies whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.runtime.support.errors import InputError
from sonomime.training.study.agreement import (
    NotDefined,
    intraclass_correlation,
    krippendorff_alpha,
)
from sonomime.training.study.analysis import analyse
from sonomime.training.study.answers import Answer, answers_file, claim, write_sheet
from sonomime.training.study.intervals import Draws
from sonomime.training.study.study_folder import Coded, read_key, read_study

N = np.nan
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability: 4 observers, 12 units, with gaps.
OBSERVERS = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, N, N, N],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, N, 3],
        [N, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, N],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, N],
    ]
)
# Shrout and Fleiss 1979, Intraclass correlations, table 2: 6 targets, 4 judges.
JUDGES = np.array(
    [[9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2], [5, 3, 6, 2, 6, 4], [8, 2, 8, 6, 9, 7]], np.float64
)


def test_alpha_of_the_published_example() -> None:
    assert krippendorff_alpha(OBSERVERS) == pytest.approx(0.815, abs=0.0005)
    assert krippendorff_alpha(10 * OBSERVERS[::-1]) == pytest.approx(0.8154, abs=0.0001), "ordinal"
    assert krippendorff_alpha(np.array([[1.0, 2, 3], [1, 2, 3]])) == 1
    assert krippendorff_alpha(np.array([[1.0, 2], [2, 1]])) == pytest.approx(-0.5)


def test_intraclass_correlations_of_the_published_example() -> None:
    one, mean = intraclass_correlation(JUDGES)
    assert (round(one, 2), round(mean, 2)) == (0.29, 0.62)
    assert intraclass_correlation(np.array([[1.0, 2, 3], [1, 2, 3]])) == pytest.approx((1, 1))


@pytest.mark.parametrize(
    ("measure", "ratings"),
    [
        (krippendorff_alpha, [[4, 4], [4, 4]]),
        (krippendorff_alpha, [[4, N], [N, 3]]),
        (krippendorff_alpha, [[1, 2, 3]]),
        (intraclass_correlation, [[4, 4], [4, 4]]),
        (intraclass_correlation, [[1, 2, 3]]),
        (intraclass_correlation, [[1], [2]]),
        (intraclass_correlation, [[1, 2], [2, 1]]),
    ],
)
def test_what_is_not_defined_says_why(measure: Callable[[Any], Any], ratings: Any) -> None:
    with pytest.raises(NotDefined, match=r"\w+"):
        measure(np.array(ratings, np.float64))


def test_intervals_widen_with_what_varies() -> None:
    rng = np.random.default_rng(0)
    raters, cases = rng.normal(0, 1, (8, 1)), rng.normal(0, 1, (1, 12))
    draws, still = Draws.of(8, 12), np.full((8, 12), 3.0)
    by_rater, by_case = draws.mean(still + raters), draws.mean(still + cases)
    # The mean of n values drawn with replacement has the standard error sd / sqrt(n).
    for found, values in ((by_rater, raters), (by_case, cases)):
        assert found.mean == pytest.approx(3 + values.mean())
        half = 1.96 * values.std() / np.sqrt(values.size)
        assert found.high - found.low == pytest.approx(2 * half, rel=0.15)
    both = 3 + raters + cases
    paired = draws.mean(both + 0.5 + rng.normal(0, 0.1, both.shape) - both)
    assert paired.low < 0.5 < paired.high < paired.low + 0.1, "what they share cancels"
    apart = draws.difference(still + raters, still + raters)
    assert apart.mean == 0 and apart.low == apart.high == 0, "the same raters are drawn for both"


def test_a_gap_does_not_count_and_too_little_gives_no_interval() -> None:
    values = np.array([[1.0, 5, 3, 4], [2, 4, 3, 5], [1, 5, N, 4]])
    found = Draws.of(3, 4).mean(values)
    assert (found.mean, found.count) == (pytest.approx(np.nanmean(values)), 11) and not found.why
    alone = Draws.of(1, 4).mean(values[:1])
    assert alone.low is not None and alone.why, "over cases alone"
    for few in (np.full((3, 4), 5.0), values[:, :2]):
        none = Draws.of(3, few.shape[1]).mean(few)
        assert none.mean == few.mean() and none.low is None and none.why
    empty = Draws.of(3, 4).mean(np.full((3, 4), N))
    assert empty.mean is None and empty.why


Rate = Callable[[Coded, int, bool], Answer]


def answer(folder: Path, rate: Rate, raters: tuple[str, ...] = ("anna", "ben", "cleo")) -> None:
    """Fill in the answers of raters: of a clip, the rater's number, whether it is a repeat."""
    study = read_study(folder)
    coded = {each.clip: each for each in read_key(folder / "key.json", study).clips}
    for number, name in enumerate(raters):
        sheet, seen = claim(folder, study, name), set[str]()
        answers = []
        for clip in study.orders[sheet.order - 1]:
            answers.append(rate(coded[clip], number, clip in seen))
            seen.add(clip)
        write_sheet(folder, study, replace(sheet, answers=tuple(answers)))


LEVEL = {"real": 5, "fomm": 3, "ours": 4}


def known(coded: Coded, rater: int, again: bool) -> Answer:
    """The arm's level, less one for case a; repeats are rated one lower; ben takes all for real."""
    level = LEVEL[coded.arm] - (coded.case == "a") - again
    return Answer(level, rater == 1 or coded.arm == "real", "odd" * again, 2.0 + rater)


def test_a_study_of_known_answers(study: Path) -> None:
    answer(study, known)
    found = analyse(study, study / "key.json")
    assert {arm: each["counts"] for arm, each in found["arms"].items()} == {
        "real": [0, 0, 0, 3, 9], "fomm": [0, 3, 9, 0, 0], "ours": [0, 0, 3, 9, 0],
    }  # fmt: skip
    real = found["arms"]["real"]
    assert real["mean"] == 4.75 and real["low"] <= 4.5 and real["high"] == 5 and not real["missing"]
    assert [each["arms"] for each in found["differences"]] == [
        ["real", "fomm"], ["real", "ours"], ["fomm", "ours"],
    ]  # fmt: skip
    for each, wanted in zip(found["differences"], (2, 1, -1), strict=True):
        assert (each["mean"], each["count"], each["low"]) == (wanted, 12, None) and each["why"]
    assert found["agreement"]["alpha"]["value"] == pytest.approx(1)
    assert found["agreement"]["icc_2_1"]["value"] == pytest.approx(1)
    repeats = found["repeats"]
    assert (repeats["shown"], repeats["rated"]) == (9, 9)
    assert (repeats["same"], repeats["within_one"], repeats["mean_change"]) == (0, 1, -1)
    asked = found["real_or_fake"]
    assert asked["called_real"]["real"]["mean"] == 1
    assert asked["called_real"]["ours"]["mean"] == pytest.approx(1 / 3)
    apart = asked["told_apart"]["ours"]
    assert apart["mean"] == pytest.approx(5 / 6) and apart["low"] < 5 / 6 < apart["high"] == 1
    assert set(asked["told_apart"]) == {"fomm", "ours"}
    assert [each["median_seconds"] for each in found["raters"]] == [2, 3, 4]
    assert len(found["comments"]) == 9 and {c["comment"] for c in found["comments"]} == {"odd"}


def test_missing_answers_are_left_out_and_said(study: Path) -> None:
    def rate(coded: Coded, rater: int, again: bool) -> Answer:
        if rater == 2 and (coded.arm == "ours" or again):
            return Answer()
        return known(coded, rater, again)

    answer(study, rate)
    found = analyse(study, study / "key.json")
    assert (found["arms"]["ours"]["count"], found["arms"]["ours"]["missing"]) == (8, 4)
    assert found["arms"]["ours"]["mean"] == 3.75
    assert [each["count"] for each in found["differences"]] == [12, 8, 8]
    assert found["agreement"]["clips_rated_by_all"] == 8
    assert found["repeats"]["rated"] == 6
    assert any("cleo has not rated 4 clips and 3 repeats" in note for note in found["notes"])
    path = answers_file(study, "anna")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5]))  # lines that are not there are missing answers too
    again = analyse(study, study / "key.json")
    assert again["raters"][0]["rated"] == 4


def test_one_rater_alone_gives_means_and_no_agreement(study: Path) -> None:
    answer(study, known, ("anna",))
    found = analyse(study, study / "key.json")
    assert found["arms"]["real"]["mean"] == 4.75 and found["arms"]["real"]["why"]
    for measure in ("alpha", "icc_2_1", "icc_2_k"):
        assert found["agreement"][measure]["value"] is None
        assert found["agreement"][measure]["why"]
    assert any("3 raters were planned, 1" in note for note in found["notes"])


def test_a_simulated_study_comes_out_as_it_was_made(study: Path) -> None:
    rng = np.random.default_rng(3)

    def rate(coded: Coded, rater: int, again: bool) -> Answer:
        value = LEVEL[coded.arm] + 0.3 * (rater - 1) + rng.normal(0, 0.5)
        return Answer(int(np.clip(round(value), 1, 5)), None)

    answer(study, rate)
    found = analyse(study, study / "key.json")
    for each, wanted in zip(found["differences"], (1.75, 0.75, -1), strict=True):
        assert each["low"] <= wanted <= each["high"], each
    assert found["real_or_fake"]["called_real"]["real"]["mean"] is None
    assert 0.3 < found["agreement"]["alpha"]["value"] < 1


def test_a_copied_file_does_not_count_twice(study: Path) -> None:
    answer(study, known)
    text = answers_file(study, "anna").read_text()
    for name in ("dora", "anna (copy)"):
        path = answers_file(study, name)
        path.write_text(text)
        with pytest.raises(InputError, match=f"{name[:4]}.*"):
            analyse(study, study / "key.json")
        path.unlink()
    answers_file(study, "dora").write_text(text.replace(",5,real", ",4,real"))
    shared = analyse(study, study / "key.json")["notes"]
    assert any("anna and dora" in note for note in shared)


def other_clip(line: str) -> str:
    return ",".join(["0" * 12 if i == 2 else cell for i, cell in enumerate(line.split(","))])


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [*lines[:2], other_clip(lines[2]), *lines[3:]], 3),  # an unknown clip
        (lambda lines: [*lines, lines[1]], 17),  # a position twice
        (lambda lines: [lines[0], lines[1].replace("1,1,", "1,2,", 1)], 2),  # another clip's place
        (lambda lines: [*lines[:2], lines[2].replace("1,2,", "2,2,", 1)], 3),  # another order
        (lambda lines: [lines[0], lines[1].replace("1,1,", "9,1,", 1)], 2),
        (lambda lines: [lines[0], lines[1].replace(",real,", ",perhaps,")], 2),
        (lambda lines: [lines[0], lines[1].replace(",2.0,", ",soon,")], 2),
        (lambda lines: [lines[0], lines[1].replace(",5,", ",6,")], 2),
    ],
)
def test_answers_that_do_not_fit_are_refused_by_file_and_line(
    study: Path, change: Callable[[list[str]], list[str]], line: int
) -> None:
    answer(
        study, lambda coded, *_: Answer(5 if coded.arm == "real" else 4, True, "", 2.0), ("anna",)
    )
    path = answers_file(study, "anna")
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")
    with pytest.raises(InputError) as caught:
        analyse(study, study / "key.json")
    assert f"{path}:{line}:" in caught.value.message and caught.value.hint


def test_a_key_that_is_not_the_studys_is_refused(study: Path, tmp_path: Path) -> None:
    answer(study, known)
    moved = (study / "key.json").rename(tmp_path / "sealed.json")
    with pytest.raises(InputError):
        analyse(study, study / "key.json")
    assert analyse(study, moved)["arms"]["real"]["mean"] == 4.75
    key = json.loads(moved.read_text())
    first, second = key["clips"][:2]
    first["arm"], second["arm"] = second["arm"], first["arm"]
    moved.write_text(json.dumps(key))
    with pytest.raises(InputError, match="SHA-256"):
        analyse(study, moved)


def test_the_report_is_written_and_printed(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["study", "report", str(study)]
    assert main(words) == 6 and "no answers" in capsys.readouterr().err
    answer(study, known)
    assert main([*words, "-o", str(tmp_path / "report")]) == 0
    text = capsys.readouterr().out
    assert "| real | 4.75 [" in text and "| real - ours | 1.00 (no interval" in text
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((tmp_path / "report" / "report.json").read_text())
    assert (tmp_path / "report" / "report.md").read_text().startswith(text)
    picture = cv2.imread(str(tmp_path / "report" / "ratings.png"))
    assert picture.shape[1] == 1200 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


@pytest.mark.slow
def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """As in the paper's study: four raters, ten cases. docs/study.md has what this gives."""
    rng = np.random.default_rng(0)

    def ratings(raters: int, cases: int) -> tuple[np.ndarray, np.ndarray]:
        """Of two arms: effects of rater and case, in both and in each, and chance."""
        both = rng.normal(0, 0.5, (raters, 1)) + rng.normal(0, 0.4, (1, cases))
        made = []
        for level in (4.2, 3.8):
            own = rng.normal(0, 0.2, (raters, 1)) + rng.normal(0, 0.3, (1, cases))
            value = level + both + own + rng.normal(0, 0.6, (raters, cases))
            made.append(np.clip(np.rint(value), 1, 5))
        return made[0], made[1]

    many = [ratings(300, 300) for _ in range(20)]
    means = np.mean([[one.mean(), (one - other).mean()] for one, other in many], axis=0)
    draws, held, studies = Draws.of(4, 10), np.zeros(2), 400
    for _ in range(studies):
        one, other = ratings(4, 10)
        for place, found in enumerate((draws.mean(one), draws.mean(one - other))):
            held[place] += found.low <= means[place] <= found.high
    shares = held / studies
    assert 0.87 < shares[0] < 0.99 and 0.9 < shares[1] < 1, shares
