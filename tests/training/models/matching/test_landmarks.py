"""The landmark detector: it learns places and presence from labels that are few, by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor

from sonomime.export.graphs import export_stage
from sonomime.runtime.bundle.checks import check_wiring
from sonomime.runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS, DisplacementControl
from sonomime.runtime.media.pixels import to_planes
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config import Config, LandmarkConfig, LossConfig, MatcherConfig, ModelConfig
from sonomime.training.data.batch import PairBatch
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import losses
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.landmarks import LandmarkDetector, Landmarks
from sonomime.training.models.matching.model import MatchingModel

SIZE = 64
NAMES = ("apex", "neck")


def config(count: int = 2, **loss: float) -> Config:
    model = ModelConfig(
        family="matching", image_size=SIZE, matcher=MatcherConfig(grid=8, stiff=4, shading=8),
        landmarks=LandmarkConfig(count, width=8),
    )  # fmt: skip
    return Config(model=model, loss=replace(LossConfig(landmarks=1.0), **loss))


def detector(count: int = 2, width: int = 8) -> LandmarkDetector:
    torch.manual_seed(0)
    return LandmarkDetector(LandmarkConfig(count, width), 1, SIZE)


def lively(found: LandmarkDetector) -> LandmarkDetector:
    """None of its heads are zero, as they are at the start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for head in (found.heatmap, found.here, found.overall):
            head.weight.normal_(0, 0.3)
    return found


def pictures(step: int, batch: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bright discs are the first landmark; every other picture has dark rings instead, which are
    none. The second landmark is on some discs' upper left, and is not always labelled."""
    random = torch.Generator().manual_seed(step)
    at = torch.rand(batch, 2, generator=random) - 0.5
    distance = (make_grid(SIZE, SIZE, "half_pixel") - at[:, None, None]).norm(dim=-1)
    disc = (distance < 0.2).float()
    ring = -((distance > 0.2) & (distance < 0.35)).float()
    shows = torch.arange(batch) % 2 == 0
    image = 0.5 + 0.4 * torch.where(shows[:, None, None], disc, ring)
    image = image + 0.1 * torch.randn(image.shape, generator=random)
    points = torch.stack([at, at - 0.2], dim=1) * shows[:, None, None]
    visible = torch.stack([shows, shows & (torch.arange(batch) % 4 == 0)], dim=1)
    absent = (~shows)[:, None].expand(-1, 2)
    return image.clamp(0, 1)[:, None], points, visible, absent


def test_it_learns_places_and_presence() -> None:
    torch.set_num_threads(1)
    found = detector()
    optimizer = torch.optim.Adam(found.parameters(), 3e-3)
    for step in range(100):
        image, *labels = pictures(step)
        loss = sum(losses.landmarks(found(image), *labels))
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, points, _, absent = pictures(10_000, batch=32)
    with torch.no_grad():
        seen = found(image)
    error = (seen.points - points).norm(dim=-1) * SIZE / 2
    shows = ~absent[:, 0]
    assert error[shows].median() < 1.5
    assert ((seen.present > 0) == shows[:, None]).float().mean() > 0.9


def test_what_is_not_known_teaches_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    given = [torch.randn(2, 2, *shape, generator=random) for shape in ((2,), (), (16, 16))]
    for tensor in given:
        tensor.requires_grad_(True)
    visible = torch.tensor([[True, False], [False, False]])
    absent = torch.tensor([[False, False], [False, True]])
    found = Landmarks(*given)
    sum(losses.landmarks(found, torch.zeros(2, 2, 2), visible, absent)).backward()
    for tensor, known in ((given[0], visible), (given[2], visible), (given[1], visible | absent)):
        assert tensor.grad is not None
        moved = tensor.grad.flatten(2).abs().sum(-1) if tensor.dim() > 2 else tensor.grad.abs()
        assert ((moved > 0) == known).all()


def test_a_heatmap_that_is_right_costs_nothing() -> None:
    points = torch.tensor([[[0.25, -0.5]]])
    grid = make_grid(16, 16, "half_pixel")
    cells = (grid - points[0, 0]).square().sum(-1) * 8**2
    heatmap = (-cells / (2 * losses.SPREAD**2))[None, None]
    yes = torch.ones(1, 1, dtype=torch.bool)
    right = losses.landmarks(Landmarks(points, torch.full((1, 1), 9.0), heatmap), points, yes, ~yes)
    wrong = losses.landmarks(
        Landmarks(-points, torch.full((1, 1), -9.0), heatmap.flip(-1)), points, yes, ~yes
    )
    assert right[0] < 0.11 and right[1] < 1e-3
    assert wrong[0] > 5 and wrong[1] > 5


def test_presence_does_not_push_places() -> None:
    found = lively(detector())
    found(torch.rand(1, 1, SIZE, SIZE)).present.sum().backward()
    assert found.heatmap.weight.grad is None
    assert found.here.weight.grad is not None


def test_a_model_without_landmarks_is_as_before() -> None:
    model = MatchingModel(config(0).model)
    assert len(model.networks()) == 2
    torch.manual_seed(3)
    without = MatchingModel(config(0).model).state_dict()
    torch.manual_seed(3)
    with_them = MatchingModel(config(2).model).state_dict()
    assert all(torch.equal(value, with_them[name]) for name, value in without.items())


def pairs(labels: int = 2) -> PairBatch:
    image, points, visible, absent = pictures(0, batch=2)
    other = image.flip(0)
    return PairBatch(
        image, other, points[:, :labels], points.flip(0)[:, :labels], visible[:, :labels],
        visible.flip(0)[:, :labels], None, None, None, torch.zeros(2, dtype=torch.bool),
        absent[:, :labels], absent.flip(0)[:, :labels],
    )  # fmt: skip


def test_the_objective_teaches_the_detector_beside_the_rest() -> None:
    family = MatchingFamily()
    model = family.model(config().model)
    assert model.networks()[-1] is model.landmarks
    result = family.objective(config())(model, pairs(), 0, None)
    assert {"landmarks", "presence"} <= result.losses.keys()
    (result.losses["landmarks"] + result.losses["presence"]).backward()
    touched = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
    assert touched == {"landmarks"}


@pytest.mark.parametrize(
    ("count", "weight", "labels"), [(0, 1.0, 2), (2, 0.0, 2), (2, 1.0, 0)], ids=str
)
def test_no_detector_no_weight_or_no_label_is_no_loss(
    count: int, weight: float, labels: int
) -> None:
    family, settings = MatchingFamily(), config(count, landmarks=weight)
    losses_ = family.objective(settings)(family.model(settings.model), pairs(labels), 0, None)
    assert not {"landmarks", "presence"} & losses_.losses.keys()


def test_the_labels_decide_how_many_are_found() -> None:
    family = MatchingFamily()
    decided = family.with_labels(config(0), NAMES)
    assert family.labels(decided.model) == 2
    assert family.with_labels(decided, NAMES) == decided
    assert family.with_labels(config(0), ()) == config(0)
    assert family.with_labels(config(0, landmarks=0.0), NAMES) == config(0, landmarks=0.0)
    for model, names in ((decided.model, NAMES), (decided.model, ()), (config(0).model, NAMES)):
        family.check_labels(model, names)
    with pytest.raises(ConfigError):
        family.check_labels(decided.model, (*NAMES, "third"))


def test_the_stage_computes_what_the_model_finds() -> None:
    family = MatchingFamily()
    model = family.model(config().model).eval()
    assert model.landmarks is not None
    lively(model.landmarks)
    chain = family.chain(model, names=NAMES)
    check_wiring(chain)
    assert isinstance(chain.control, DisplacementControl) and chain.control.landmarks == NAMES
    stage = chain.stages[0]
    assert (stage.name, stage.role) == ("landmarks", "landmarks")
    assert (stage.outputs[0].dtype, stage.outputs[0].shape) == ("float32", (1, 2, 3))

    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    oracle = family.oracle(model)
    oracle.set_source(image, image)
    expected = oracle.animate(image.T)
    assert np.array_equal(expected[LANDMARK_IMAGE], to_planes(image.T))
    session = onnxruntime.InferenceSession(export_stage(stage).SerializeToString())
    (found,) = session.run([LANDMARKS], {LANDMARK_IMAGE: expected[LANDMARK_IMAGE]})
    np.testing.assert_allclose(found, expected[LANDMARKS], atol=1e-4)
    assert np.unique(found).size == 6
    assert ((found[..., 2] > 0) & (found[..., 2] < 1)).all()
    half = family.chain(model, "fp16", NAMES).stages[0]
    coarse = half.module(torch.from_numpy(expected[LANDMARK_IMAGE])).detach().numpy()
    assert coarse.dtype == np.float32  # coordinates stay whole
    np.testing.assert_allclose(coarse, found, atol=0.05)


@pytest.mark.parametrize(("count", "names"), [(0, NAMES), (2, ())], ids=str)
def test_a_chain_without_learned_landmarks_has_no_such_stage(
    count: int, names: tuple[str, ...]
) -> None:
    family = MatchingFamily()
    chain = family.chain(family.model(config(count).model), names=names)
    check_wiring(chain)
    assert isinstance(chain.control, DisplacementControl) and chain.control.landmarks == ()
    assert not chain.of_role("landmarks")
