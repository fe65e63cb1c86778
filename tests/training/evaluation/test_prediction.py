"""Predictions against a known truth, by predictors whose faults are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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

from .fakes import Fake, Image, candidate_of
from .phantoms import (
    COUNT,
    NAMES,
    SIZE,
    Knowing,
    displacement,
    marks,
    pair_data,
    sector,
)


@pytest.fixture(scope="module")
def data(phantom: Path) -> PairData:
    return pair_data(phantom)


def judge(predictor: Fake, data: PairData, max_frames: int | None = None) -> Any:
    return predict(candidate_of(predictor, SIZE), data, max_frames=max_frames)[0]


def brightest(image: Image) -> tuple[int, int]:
    """(x, y) of the brightest pixel."""
    y, x = np.unravel_index(int(image.argmax()), image.shape)
    return int(x), int(y)


class Half(Knowing):
    """Moves half as far as it should; nothing outside of the sector."""

    def animate(self, frame: Image, timestamp: float | None = None) -> Image:
        super().animate(frame)
        field = self.data.field.displacement[self.number] / 2
        return np.where(sector(), warp_by_flow(self.source, field), 0).astype(np.uint8)


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


@pytest.mark.parametrize(
    ("alignment", "can_register", "pictures"),
    [("given", True, True), ("landmarks", True, False), ("given", False, False)],
)
def test_it_is_aligned_by_labels_of_both_frames_and_by_the_pictures_where_it_can(
    data: PairData, alignment: str, can_register: bool, pictures: bool
) -> None:
    fake = Aligning(can_register)
    reference = data.reference + 5
    result, _ = predict(
        candidate_of(fake, SIZE), replace(data, reference=reference), alignment, max_frames=1
    )
    assert np.allclose(data.reference, marks(1)[0], atol=1e-3)
    assert np.array_equal(fake.aligned, [data.start, reference]) and fake.by_pictures is pictures
    assert result["aligned_by"] == ", ".join((*NAMES, "pictures") if pictures else NAMES)
    reference[0] = np.nan
    result, _ = predict(
        candidate_of(fake, SIZE), replace(data, reference=reference), alignment, max_frames=1
    )
    assert fake.aligned[0].tolist() == [data.start[1].tolist()]
    assert NAMES[0] not in result["aligned_by"]
    reference[:] = np.nan
    with pytest.raises(InputError) as caught:
        predict(candidate_of(fake, SIZE), replace(data, reference=reference), alignment)
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
    other = result["methods"]["another_seed"]
    assert other["sharpness"] == pytest.approx(1, abs=0.1)
    assert result["exact"]["skill"]["another_seed"] < 0.2


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


def test_half_of_the_motion_lies_between_and_only_the_sector_counts_for_skill(
    data: PairData,
) -> None:
    half = judge(Half(data), data)
    assert 0 < half["exact"]["skill"]["model"] < 0.7
    assert 0.4 < half["exact"]["landmark_ratio"] < 0.6
    assert 0.4 < half["methods"]["model"]["motion_agreement"] < 0.7
    assert half["methods"]["model"]["l1"] > half["methods"]["hold"]["l1"]


def test_fewer_frames_on_request(data: PairData) -> None:
    result, samples = predict(candidate_of(Fake(), SIZE), data, max_frames=3)
    assert (result["frames"], result["driven"]) == (COUNT, 3)
    assert [sample.step.number for sample in samples] == [0, 4, 8]
    assert judge(Fake(), data, 1)["driven"] == 1
