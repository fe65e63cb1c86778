"""The landmark detector: it learns places and presence from labels that are few, by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config import Config, LandmarkConfig, LossConfig, MatcherConfig, ModelConfig
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import objective as losses
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.landmarks import LandmarkDetector, Landmarks

from ...small_runs import pairs_of

SIZE = 64
NAMES = ("apex", "neck")
FAMILY = MatchingFamily()


def config(count: int = 2, **loss: float) -> Config:
    model = ModelConfig(
        family="matching", image_size=SIZE, matcher=MatcherConfig(grid=8, stiff=4, shading=8),
        landmarks=LandmarkConfig(count, width=8),
    )  # fmt: skip
    return Config(model=model, loss=replace(LossConfig(landmarks=1.0), **loss))


@pytest.fixture
def detector() -> LandmarkDetector:
    torch.manual_seed(0)
    return LandmarkDetector(LandmarkConfig(2, width=8), 1, SIZE)


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


def test_it_learns_places_and_presence(detector: LandmarkDetector) -> None:
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(detector.parameters(), 3e-3)
    for step in range(100):
        image, *labels = pictures(step)
        loss = torch.stack(losses.landmarks(detector(image), *labels)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    image, points, _, absent = pictures(10_000, batch=32)
    with torch.no_grad():
        seen = detector(image)
    error = (seen.points - points).norm(dim=-1) * SIZE / 2
    shows = ~absent[:, 0]
    assert error[shows].median() < 1.5
    assert ((seen.present > 0) == shows[:, None]).float().mean() > 0.9
    # Presence does not push places.
    detector.zero_grad()
    detector(image[:1]).present.sum().backward()
    assert detector.heatmap.weight.grad is None and detector.here.weight.grad is not None


def test_what_is_not_known_teaches_nothing() -> None:
    given = [torch.randn(2, 2, *shape).requires_grad_() for shape in ((2,), (), (16, 16))]
    visible = torch.tensor([[True, False], [False, False]])
    absent = torch.tensor([[False, False], [False, True]])
    found = Landmarks(*given)
    sum(losses.landmarks(found, torch.zeros(2, 2, 2), visible, absent)).backward()
    for tensor, known in ((given[0], visible), (given[2], visible), (given[1], visible | absent)):
        assert tensor.grad is not None
        moved = tensor.grad.reshape(2, 2, -1).abs().sum(-1)
        assert ((moved > 0) == known).all()


@pytest.mark.parametrize(
    ("count", "weight", "labels"), [(2, 1.0, 2), (0, 1.0, 2), (2, 0.0, 2), (2, 1.0, 0)], ids=str
)
def test_the_objective_teaches_the_detector_beside_the_rest(
    count: int, weight: float, labels: int
) -> None:
    image, points, visible, absent = pictures(0, batch=2)
    p, v, a = (x[:, :labels] for x in (points, visible, absent))
    pairs = pairs_of(image, image.flip(0))._replace(
        source_points=p, driving_points=p.flip(0), source_visible=v, driving_visible=v.flip(0),
        source_absent=a, driving_absent=a.flip(0),
    )  # fmt: skip
    settings = config(count, landmarks=weight)
    model = FAMILY.model(settings.model)
    found = FAMILY.objective(settings)(model, pairs, 0, None).losses
    own = {"landmarks", "presence"} if count and weight and labels else set()
    assert found.keys() & {"landmarks", "presence"} == own
    if own:
        torch.stack([found[name] for name in own]).sum().backward()
        touched = {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}
        assert touched == {"landmarks"}


def test_the_labels_decide_how_many_are_found() -> None:
    decided = FAMILY.with_labels(config(0), NAMES)
    assert FAMILY.labels(decided.model) == 2
    assert FAMILY.with_labels(decided, NAMES) == decided
    assert FAMILY.with_labels(config(0), ()) == config(0)
    assert FAMILY.with_labels(config(0, landmarks=0.0), NAMES) == config(0, landmarks=0.0)
    for model, names in ((decided.model, NAMES), (decided.model, ()), (config(0).model, NAMES)):
        FAMILY.check_labels(model, names)
    with pytest.raises(ConfigError):
        FAMILY.check_labels(decided.model, (*NAMES, "third"))
