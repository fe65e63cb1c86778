"""Predictions against a known truth, by predictors whose faults are known."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.runtime.alignment import Landmark
from sonomime.runtime.support.errors import InputError
from sonomime.training.evaluation.ground_truth.readers import PairData
from sonomime.training.evaluation.metrics import warp_by_flow
from sonomime.training.evaluation.prediction import METHODS, NOT_ALIGNED, PairResult, predict
from sonomime.training.evaluation.prediction_report import PredictionReport
from sonomime.training.evaluation.reconstruction import Pictures
from sonomime.training.evaluation.strips import pair_row, pair_strip

from .fakes import Copy, Fake, Image, candidate_of
from .phantoms import (
    COUNT,
    MARKS,
    NAMES,
    SIZE,
    Knowing,
    displacement,
    marks,
    pair_data,
    sector,
    write_phantom,
)


class Warping(Knowing):
    """The source warped by the exact field: what the oracle does."""

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        super().animate(frame)
        field = self.data.field.displacement[self.number]
        return np.asarray(warp_by_flow(self.source, field), np.uint8)


class Half(Warping):
    """Moves half as far as it should."""

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        super().animate(frame)
        field = self.data.field.displacement[self.number] / 2
        return np.asarray(warp_by_flow(self.source, field), np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PairData:
    return pair_data(write_phantom(tmp_path_factory.mktemp("data") / "phantom"))


def judge(predictor: Fake, data: PairData, max_frames: int | None = None) -> PairResult:
    return predict(candidate_of(predictor, SIZE), data, max_frames=max_frames)[0]


def brightest(image: Image) -> tuple[int, int]:
    """(x, y) of the brightest pixel."""
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    return int(x), int(y)


class Aligning(Fake):
    """Keeps what it is aligned by; finds one landmark, and is not sure of another."""

    def __init__(self, can_register: bool = False) -> None:
        super().__init__()
        self.session = SimpleNamespace(can_align=True, landmarks=NAMES, can_register=can_register)
        self.aligned: list[NDArray[np.float64]] = []
        self.by_pictures: bool | None = None

    def align(
        self, source: NDArray[np.float64], reference: NDArray[np.float64], pictures: bool = True
    ) -> None:
        assert self.reference is not None  # it belongs to the pair
        self.aligned, self.by_pictures = [source, reference], pictures

    def unalign(self) -> None:
        self.aligned = []

    def find_landmarks(self, image: Image) -> list[Landmark]:
        x, y = brightest(image)
        return [Landmark(NAMES[0], float(x), float(y), 0.9), Landmark(NAMES[1], 3.0, 3.0, 0.2)]


def test_it_is_aligned_by_the_labels_of_both_frames(data: PairData) -> None:
    assert np.allclose(data.reference, marks(1)[0], atol=1e-3)
    fake, elsewhere = Aligning(), replace(data, reference=data.reference + 5)
    result, _ = predict(candidate_of(fake, SIZE), elsewhere, "given", 2)
    assert result.aligned_by == ", ".join(NAMES)
    assert np.array_equal(fake.aligned, [data.start, data.start + 5])


@pytest.mark.parametrize(("alignment", "too"), [("given", True), ("landmarks", False)])
def test_the_pictures_align_too_unless_the_landmarks_alone_are_asked_for(
    data: PairData, alignment: str, too: bool
) -> None:
    fake = Aligning(can_register=True)
    result, _ = predict(candidate_of(fake, SIZE), data, alignment, 2)
    assert fake.by_pictures is too
    assert result.aligned_by == ", ".join((*NAMES, "pictures") if too else NAMES)
    blind = Aligning()
    predict(candidate_of(blind, SIZE), data, alignment, 2)
    assert blind.by_pictures is False


def test_only_landmarks_of_both_frames_count(data: PairData) -> None:
    reference = data.reference.copy()
    reference[0] = np.nan
    fake = Aligning()
    result, _ = predict(candidate_of(fake, SIZE), replace(data, reference=reference), "given", 2)
    assert result.aligned_by == NAMES[1]
    assert fake.aligned[0].tolist() == [data.start[1].tolist()]
    with pytest.raises(InputError) as caught:
        missing = replace(data, reference=np.full_like(reference, np.nan))
        predict(candidate_of(fake, SIZE), missing, "given", 2)
    assert data.pair.name in caught.value.message and caught.value.hint


def test_it_is_aligned_by_what_the_model_finds_or_not_at_all(data: PairData) -> None:
    fake = Aligning()
    result, _ = predict(candidate_of(fake, SIZE), data, "auto", 2)
    assert result.aligned_by == NAMES[0]
    wanted = [brightest(image) for image in (data.source, data.driving[0])]
    assert np.array_equal(np.concatenate(fake.aligned), wanted)
    alone = Aligning()
    result, _ = predict(candidate_of(alone, SIZE), data, "none", 2)
    assert not alone.aligned and result.aligned_by == NOT_ALIGNED


def test_a_held_source_has_skill_0_and_the_error_of_the_field(data: PairData) -> None:
    result = judge(Fake(), data)
    assert set(result.methods) == set(METHODS) == set(result.exact.skill)
    assert result.exact.skill["model"] == result.exact.skill["hold"] == 0
    assert result.exact.skill["oracle"] == 1
    mean = np.linalg.norm(displacement(1)[:, sector()], axis=-1).mean()
    assert result.exact.endpoint_error == pytest.approx(mean, rel=1e-4)
    assert result.exact.endpoint_hold == pytest.approx(mean, rel=1e-4)
    assert result.mean_flow == pytest.approx(mean, rel=1e-4)
    assert result.methods["model"].l1_ratio == 1
    assert result.methods["hold"].motion_agreement == pytest.approx(0, abs=1e-6)
    assert result.exact.landmark_ratio == pytest.approx(1, abs=1e-3)


def test_holds_landmark_error_is_exact(data: PairData) -> None:
    errors = judge(Fake(), data).exact.landmarks
    wanted = np.linalg.norm(marks(1) - MARKS, axis=-1).mean(axis=0)
    assert list(errors) == list(NAMES)
    assert [errors[name].hold for name in NAMES] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_truth_itself_beats_the_oracle(data: PairData) -> None:
    result = judge(Knowing(data), data)
    assert result.exact.l1["model"] == 0
    assert result.exact.skill["model"] > 1
    assert result.exact.endpoint_error < 1e-3
    landmark = result.exact.landmark
    assert landmark is not None and landmark.model == landmark.truth < 0.25
    assert landmark.oracle < 0.4 and result.exact.landmark_ratio < 0.15
    assert result.methods["model"].l1_ratio == 0
    assert result.methods["model"].temporal_correlation == pytest.approx(1)


def test_the_sources_own_warp_is_the_oracle(data: PairData) -> None:
    result = judge(Warping(data), data)
    assert result.exact.skill["model"] == 1
    assert result.methods["model"] == pytest.approx(result.methods["oracle"], abs=1e-6)
    assert result.methods["model"].motion_agreement > 0.8


def test_half_of_the_motion_lies_between(data: PairData) -> None:
    half = judge(Half(data), data)
    assert 0 < half.exact.skill["model"] < 0.7
    assert 0.4 < half.exact.landmark_ratio < 0.6
    assert 0.4 < half.methods["model"].motion_agreement < 0.7


def test_another_seed_is_right_but_for_its_speckle(data: PairData) -> None:
    result = judge(Fake(), data)
    other = result.methods["another_seed"]
    assert other.sharpness == pytest.approx(1, abs=0.1)
    assert result.exact.skill["another_seed"] < 0.2
    copied = judge(Copy(), data)
    assert copied.exact.skill["model"] < 0.2  # B's clip is no picture of A


def test_the_reference_is_the_drivers_first_frame(data: PairData) -> None:
    fake = Fake()
    judge(fake, data)
    assert np.array_equal(fake.source, data.source)
    assert fake.reference is not None and np.array_equal(fake.reference, data.driving[0])


def test_fewer_frames_on_request(data: PairData) -> None:
    result, pictures = predict(candidate_of(Fake(), SIZE), data, max_frames=3)
    assert (result.frames, result.driven) == (COUNT, 3)
    assert [sample.number for sample in pictures.own] == [0, 4, 8]
    assert judge(Fake(), data, 1).driven == 1


def test_only_the_sector_counts_for_skill(data: PairData) -> None:
    class Spoiled(Fake):
        def animate(self, frame: Image, timestamp: float | None = None) -> Image:
            return np.where(sector(), self.source, 0).astype(np.uint8)

    result = judge(Spoiled(), data)
    assert result.exact.skill["model"] == 0
    assert result.methods["model"].l1 > result.methods["hold"].l1


def test_a_colour_model_is_judged_too(data: PairData) -> None:
    def rgb(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.repeat(frames[..., None], 3, axis=-1)

    colour = replace(
        data,
        source=rgb(data.source),
        driving=rgb(data.driving),
        truth=rgb(data.truth),
        other=rgb(data.other),
    )
    result = predict(candidate_of(Knowing(colour), SIZE, 3), colour)[0]
    assert result.exact.l1["model"] == 0


@pytest.fixture(scope="module")
def judged(data: PairData) -> tuple[PairResult, Pictures]:
    return predict(candidate_of(Half(data), SIZE), data)


def test_a_strip_has_five_rows_and_marks(judged: tuple[PairResult, Pictures]) -> None:
    result, pictures = judged
    strip = pair_strip(result, pictures, "half_pixel")
    row = 192 + 24
    assert strip.shape == (20 + 5 * row, 6 * 200, 3)
    body = strip[20:].reshape(5, row, 6, 200, 3).astype(int)
    green = (body == (90, 230, 90)).all(-1).any(axis=(1, 3))
    assert green[0].tolist() == [True] + [False] * 5  # the source's marks, none on driving frames
    assert green[1, 1:].all() and green[2, 1:].all()  # on prediction and truth
    assert not green[3:].any()
    orange = ((body[..., 0] - body[..., 2]) > 120).any(axis=(1, 3))
    assert orange[1, 1:].all() and not orange[2].any()  # the tracker's, on the prediction alone


def test_marks_outside_or_unknown_are_left_out(judged: tuple[PairResult, Pictures]) -> None:
    result, pictures = judged
    wild = np.array([[np.nan, 3.0], [1e9, -1e9]])
    samples = [sample._replace(true=wild, tracked=wild) for sample in pictures.own]
    strip = pair_strip(result, Pictures(pictures.source, samples, start=wild), "half_pixel")
    assert not (strip == (90, 230, 90)).all(-1).any()
    assert pair_row(result, pictures).shape[1] == 7 * 200


@pytest.fixture(scope="module")
def report(judged: tuple[PairResult, Pictures], data: PairData) -> PredictionReport:
    result = judged[0]
    others = [
        replace(judge(Fake(), data), pair="b__c", subjects=("b", "c")),
        replace(judge(Knowing(data), data), pair="c__a", subjects=("c", "a")),
    ]
    results = [replace(result, pair="a__b", subjects=("a", "b")), *others]
    settings = {"task": "prediction", "seed": 0}
    said = ["careful"]
    return PredictionReport("sonomime evaluate x", {"kind": "fake"}, settings, results, [], said)


def test_the_record_holds_pairs_means_subjects_and_intervals(report: PredictionReport) -> None:
    record = report.record
    assert [pair["pair"] for pair in record["pairs"]] == ["a__b", "b__c", "c__a"]
    assert record["pairs"][0]["source_subject"] == "a"
    exact = record["means"]["exact"]
    skills = [pair["exact"]["skill"]["model"] for pair in record["pairs"]]
    assert exact["model_skill"]["mean"] == pytest.approx(np.mean(skills))
    assert exact["model_skill"]["low"] <= exact["model_skill"]["mean"]
    assert exact["model_skill"]["mean"] <= exact["model_skill"]["high"]
    assert set(exact["landmarks"]) == set(NAMES)
    assert set(record["subjects"]["source"]) == set("abc")
    assert record["subjects"]["source"]["b"]["skill"]["model"] == 0
    assert record["subjects"]["driving"]["c"]["skill"]["model"] == 0
    assert json.loads(report.to_json()) == record


def test_the_tables_are_tables(report: PredictionReport) -> None:
    text = report.to_markdown()
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1, table
    assert "bladder_neck" in text and "another seed" in text and "careful" in text
    assert "[" in text.split("landmark error, model / hold:")[1].splitlines()[0]


def test_the_summary_names_skill_landmarks_and_l1(report: PredictionReport) -> None:
    line = report.summary_line()
    assert line.startswith("3 pairs: skill ") and "of hold's" in line and "L1 0." in line
    alone = replace(report, results=report.results[:1]).summary_line()
    assert alone.startswith("1 pair:") and "[" not in alone
