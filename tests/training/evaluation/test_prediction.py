"""Predictions against a known truth, by predictors whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.runtime.alignment import Landmark
from sonomime.runtime.support.errors import InputError
from sonomime.training.evaluation.ground_truth.readers import PairData
from sonomime.training.evaluation.metrics import warp_by_flow
from sonomime.training.evaluation.prediction import METHODS, NOT_ALIGNED, predict

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


def judge(predictor: Fake, data: PairData, max_frames: int | None = None) -> Any:
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
    assert result["aligned_by"] == ", ".join(NAMES)
    assert np.array_equal(fake.aligned, [data.start, data.start + 5])


@pytest.mark.parametrize(("alignment", "too"), [("given", True), ("landmarks", False)])
def test_the_pictures_align_too_unless_the_landmarks_alone_are_asked_for(
    data: PairData, alignment: str, too: bool
) -> None:
    fake = Aligning(can_register=True)
    result, _ = predict(candidate_of(fake, SIZE), data, alignment, 2)
    assert fake.by_pictures is too
    assert result["aligned_by"] == ", ".join((*NAMES, "pictures") if too else NAMES)
    blind = Aligning()
    predict(candidate_of(blind, SIZE), data, alignment, 2)
    assert blind.by_pictures is False


def test_only_landmarks_of_both_frames_count(data: PairData) -> None:
    reference = data.reference.copy()
    reference[0] = np.nan
    fake = Aligning()
    result, _ = predict(candidate_of(fake, SIZE), replace(data, reference=reference), "given", 2)
    assert result["aligned_by"] == NAMES[1]
    assert fake.aligned[0].tolist() == [data.start[1].tolist()]
    with pytest.raises(InputError) as caught:
        missing = replace(data, reference=np.full_like(reference, np.nan))
        predict(candidate_of(fake, SIZE), missing, "given", 2)
    assert data.pair.name in caught.value.message and caught.value.hint


def test_it_is_aligned_by_what_the_model_finds_or_not_at_all(data: PairData) -> None:
    fake = Aligning()
    result, _ = predict(candidate_of(fake, SIZE), data, "auto", 2)
    assert result["aligned_by"] == NAMES[0]
    wanted = [brightest(image) for image in (data.source, data.driving[0])]
    assert np.array_equal(np.concatenate(fake.aligned), wanted)
    alone = Aligning()
    result, _ = predict(candidate_of(alone, SIZE), data, "none", 2)
    assert not alone.aligned and result["aligned_by"] == NOT_ALIGNED


def test_a_held_source_has_skill_0_and_the_error_of_the_field(data: PairData) -> None:
    fake = Fake()
    result = judge(fake, data)
    assert np.array_equal(fake.source, data.source)
    assert fake.reference is not None and np.array_equal(fake.reference, data.driving[0])
    assert set(result["methods"]) == set(METHODS) == set(result["exact"]["skill"])
    assert result["exact"]["skill"]["model"] == result["exact"]["skill"]["hold"] == 0
    assert result["exact"]["skill"]["oracle"] == 1
    mean = np.linalg.norm(displacement(1)[:, sector()], axis=-1).mean()
    assert result["exact"]["endpoint_error"] == pytest.approx(mean, rel=1e-4)
    assert result["exact"]["endpoint_hold"] == pytest.approx(mean, rel=1e-4)
    assert result["mean_flow"] == pytest.approx(mean, rel=1e-4)
    assert result["methods"]["model"]["l1_ratio"] == 1
    assert result["methods"]["hold"]["motion_agreement"] == pytest.approx(0, abs=1e-6)
    assert result["exact"]["landmark_ratio"] == pytest.approx(1, abs=1e-3)


def test_holds_landmark_error_is_exact(data: PairData) -> None:
    errors = judge(Fake(), data)["exact"]["landmarks"]
    wanted = np.linalg.norm(marks(1) - MARKS, axis=-1).mean(axis=0)
    assert list(errors) == list(NAMES)
    assert [errors[name]["hold"] for name in NAMES] == pytest.approx(wanted.tolist(), abs=1e-4)


def test_the_truth_itself_beats_the_oracle(data: PairData) -> None:
    result = judge(Knowing(data), data)
    assert result["exact"]["l1"]["model"] == 0
    assert result["exact"]["skill"]["model"] > 1
    assert result["exact"]["endpoint_error"] < 1e-3
    landmark = result["exact"]["landmark"]
    assert landmark["model"] == landmark["truth"] < 0.25
    assert landmark["oracle"] < 0.4 and result["exact"]["landmark_ratio"] < 0.15
    assert result["methods"]["model"]["l1_ratio"] == 0
    assert result["methods"]["model"]["temporal_correlation"] == pytest.approx(1)


def test_the_sources_own_warp_is_the_oracle(data: PairData) -> None:
    result = judge(Warping(data), data)
    assert result["exact"]["skill"]["model"] == 1
    assert result["methods"]["model"] == pytest.approx(result["methods"]["oracle"], abs=1e-6)
    assert result["methods"]["model"]["motion_agreement"] > 0.8


def test_half_of_the_motion_lies_between(data: PairData) -> None:
    half = judge(Half(data), data)
    assert 0 < half["exact"]["skill"]["model"] < 0.7
    assert 0.4 < half["exact"]["landmark_ratio"] < 0.6
    assert 0.4 < half["methods"]["model"]["motion_agreement"] < 0.7


def test_another_seed_is_right_but_for_its_speckle(data: PairData) -> None:
    result = judge(Fake(), data)
    other = result["methods"]["another_seed"]
    assert other["sharpness"] == pytest.approx(1, abs=0.1)
    assert result["exact"]["skill"]["another_seed"] < 0.2
    copied = judge(Copy(), data)
    assert copied["exact"]["skill"]["model"] < 0.2  # B's clip is no picture of A


def test_fewer_frames_on_request(data: PairData) -> None:
    result, samples = predict(candidate_of(Fake(), SIZE), data, max_frames=3)
    assert (result["frames"], result["driven"]) == (COUNT, 3)
    assert [sample.step.number for sample in samples] == [0, 4, 8]
    assert judge(Fake(), data, 1)["driven"] == 1


def test_only_the_sector_counts_for_skill(data: PairData) -> None:
    class Spoiled(Fake):
        def animate(self, frame: Image, timestamp: float | None = None) -> Image:
            return np.where(sector(), self.source, 0).astype(np.uint8)

    result = judge(Spoiled(), data)
    assert result["exact"]["skill"]["model"] == 0
    assert result["methods"]["model"]["l1"] > result["methods"]["hold"]["l1"]
