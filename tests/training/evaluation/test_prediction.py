"""Predictions against a known truth, by predictors whose faults are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sonomime.runtime.alignment import Landmark
from sonomime.runtime.support.errors import InputError
from sonomime.training.evaluation.loop import Case
from sonomime.training.evaluation.metrics import warp_by_flow
from sonomime.training.evaluation.tasks import NOT_ALIGNED, PREDICTION_METHODS, predict
from sonomime.training.evaluation.truth import Pair

from .fakes import COUNT, NAMES, Fake, Image, candidate_of, displacement, first_pair, marks, sector

Data = tuple[Pair, Case]


@pytest.fixture(scope="module")
def data(phantom: Path) -> Data:
    return first_pair(phantom)


def judge(fake: Fake, data: Data, alignment: str = "none", max_frames: int = COUNT) -> Any:
    return predict(candidate_of(fake), *data, alignment, max_frames)[0]


def mean_place(image: Image) -> tuple[float, float]:
    """A place that says which picture this is."""
    return float(image.mean()) / 4, 30.0


class Aligning(Fake):
    """Keeps what it is aligned by; finds one landmark, and is not sure of another."""

    def __init__(self, can_register: bool = False) -> None:
        super().__init__()
        vars(self.session).update(can_align=True, landmarks=NAMES, can_register=can_register)
        self.aligned: list[NDArray[np.float64]] = []
        self.by_pictures: bool | None = None

    def align(
        self, source: NDArray[np.float64], reference: NDArray[np.float64], pictures: bool = True
    ) -> None:
        assert self.reference.shape == self.source.shape  # it belongs to the pair
        self.aligned, self.by_pictures = [source, reference], pictures

    def find_landmarks(self, image: Image) -> list[Landmark]:
        return [Landmark(NAMES[0], *mean_place(image), 0.9), Landmark(NAMES[1], 3.0, 3.0, 0.2)]


@pytest.mark.parametrize(
    ("alignment", "can_register", "pictures"),
    [("given", True, True), ("landmarks", True, False), ("given", False, False)],
)
def test_it_is_aligned_by_labels_of_both_frames_and_by_the_pictures_where_it_can(
    data: Data, alignment: str, can_register: bool, pictures: bool
) -> None:
    fake, (pair, case) = Aligning(can_register), data
    reference = case.reference + 5
    moved = pair, replace(case, reference=reference)
    by = judge(fake, moved, alignment, 1)["aligned_by"]
    assert np.allclose(case.reference, marks(1)[0], atol=1e-3)
    assert np.array_equal(fake.aligned, [case.start, reference]) and fake.by_pictures is pictures
    assert by == ", ".join((*NAMES, "pictures") if pictures else NAMES)
    reference[0] = 200  # outside of the picture
    assert NAMES[0] not in judge(fake, moved, alignment, 1)["aligned_by"]
    assert fake.aligned[0].tolist() == [case.start[1].tolist()]
    reference[:] = np.nan
    with pytest.raises(InputError) as caught:
        judge(fake, moved, alignment)
    assert pair.name in caught.value.message and caught.value.hint


def test_it_is_aligned_by_what_the_model_finds_or_not_at_all(data: Data) -> None:
    fake, alone = Aligning(), Aligning()
    assert judge(fake, data, "auto", 2)["aligned_by"] == NAMES[0]
    wanted = [mean_place(image) for image in (data[1].source, data[1].driving[0])]
    assert np.array_equal(np.concatenate(fake.aligned), wanted)
    result, samples = predict(candidate_of(alone), *data, "none", 3)
    assert result["aligned_by"] == NOT_ALIGNED and not alone.aligned
    assert (result["frames"], result["driven"]) == (COUNT, 3)
    assert [sample.number for sample in samples] == [0, 4, 8]


def test_a_held_source_has_skill_0_and_the_error_of_the_field(data: Data) -> None:
    fake = Fake()
    result = judge(fake, data)
    methods, exact = result["methods"], result["exact"]
    assert np.array_equal(fake.source, data[1].source)
    assert np.array_equal(fake.reference, data[1].driving[0])
    assert set(methods) == set(PREDICTION_METHODS) == set(exact["skill"])
    assert exact["skill"]["model"] == exact["skill"]["hold"] == 0
    assert exact["skill"]["oracle"] == 1
    mean = np.linalg.norm(displacement(1)[:, sector()], axis=-1).mean()
    for found in (exact["endpoint_error"], exact["endpoint_hold"], result["mean_flow"]):
        assert found == pytest.approx(mean, rel=1e-4)
    assert methods["model"]["l1_ratio"] == 1
    assert methods["hold"]["motion_agreement"] == pytest.approx(0, abs=1e-6)
    assert exact["landmark_ratio"] == pytest.approx(1, abs=1e-3)
    assert methods["another_seed"]["sharpness"] == pytest.approx(1, abs=0.1)
    assert exact["skill"]["another_seed"] < 0.2


def knowing(data: Data, share: float, picture: Callable[[Image, int, Any], Any]) -> Fake:
    """Knows the field, and moves by a share of it; frames differ, so each says which it is."""

    def number(frame: Image) -> int:
        return next(t for t, one in enumerate(data[1].driving) if np.array_equal(one, frame))

    return Fake(
        lambda s, x: picture(s, number(x), share * data[1].flow(number(x))[0]),
        lambda s, x: share * data[1].flow(number(x))[0],
    )


def test_the_truth_itself_beats_the_oracle(data: Data) -> None:
    result = judge(knowing(data, 1, lambda s, t, flow: data[1].truth[t]), data)
    exact, model = result["exact"], result["methods"]["model"]
    assert exact["l1"]["model"] == 0 and exact["skill"]["model"] > 1
    assert exact["endpoint_error"] < 1e-3
    assert exact["landmark"]["model"] == exact["landmark"]["truth"] < 0.25
    assert exact["landmark"]["oracle"] < 0.4 and exact["landmark_ratio"] < 0.15
    assert model["l1_ratio"] == 0 and model["temporal_correlation"] == pytest.approx(1)


def test_half_of_the_motion_lies_between_and_only_the_sector_counts_for_skill(
    data: Data,
) -> None:
    half = judge(
        knowing(data, 0.5, lambda s, t, flow: np.where(sector(), warp_by_flow(s, flow), 0)), data
    )
    assert 0 < half["exact"]["skill"]["model"] < 0.7
    assert 0.4 < half["exact"]["landmark_ratio"] < 0.6
    assert 0.4 < half["methods"]["model"]["motion_agreement"] < 0.7
    assert half["methods"]["model"]["l1"] > half["methods"]["hold"]["l1"]
    # Motion counts where the source's sector shows the tissue; here it shows none of it.
    pair, case = data
    away = np.full((*case.mask.shape, 2), 200, np.float32)
    gone = judge(Fake(), (pair, replace(case, flow=lambda t: (away, case.mask))), max_frames=2)
    assert np.isnan(gone["methods"]["model"]["motion_agreement"])
