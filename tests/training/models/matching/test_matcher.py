"""Matcher and landmark detector: what they compare, give untrained, and learn from few labels."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lively import noise
from torch import Tensor

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config import Config, LandmarkConfig, MatcherConfig
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import objective as losses
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.landmarks import LandmarkDetector, Landmarks
from sonomime.training.models.matching.matcher import (
    LocalCorrelation,
    Match,
    Matcher,
    locally_normalised,
    moved,
)

from ... import small_runs


def speckles(count: int) -> Tensor:
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 2.0) for each in noise(count, 64, 64).numpy()])
    return torch.from_numpy((soft - soft.min()) / (soft.max() - soft.min()))[:, None]


@pytest.fixture
def matcher() -> Matcher:
    torch.manual_seed(0)
    return Matcher(MatcherConfig(fine=8, coarse=16), 1, 64)


def run(matcher: Matcher, driving: Tensor, reference: Tensor) -> Match:
    found: Match = matcher(matcher.encoder(driving).unit(), matcher.encoder(reference).unit())
    return found


@pytest.mark.parametrize(
    ("batch", "channels", "size", "radius"),
    [(1, 1, 8, 1), (2, 3, 8, 4), (3, 2, 32, 4), (1, 8, 64, 3), (2, 4, 16, 9)],
)
def test_correlation_is_the_windows_of_shifted_products(
    batch: int, channels: int, size: int, radius: int
) -> None:
    first, second = torch.randn(2, batch, channels, size, size)
    near = F.unfold(second, 2 * radius + 1, padding=radius)
    wanted = (first[:, :, None] * near.view(batch, channels, -1, size, size)).sum(1)
    correlation = LocalCorrelation(size, radius)
    last = second.contiguous(memory_format=torch.channels_last)
    turned = first.transpose(2, 3).contiguous().transpose(2, 3)
    for one, other in ((first, second), (turned, last)):  # however they lie in memory
        torch.testing.assert_close(correlation(one, other), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_frame_gives_finite_numbers(level: float, matcher: Matcher) -> None:
    flat = torch.full((1, 1, 64, 64), level)
    match = run(matcher, flat, flat)
    assert all(torch.isfinite(field).all() for field in match)
    assert torch.equal(match.coarse, match.fine)  # corrections begin at zero


def test_gain_and_offset_hardly_matter_to_what_is_seen() -> None:
    image = 0.3 + 0.4 * speckles(1)
    one, other = locally_normalised(image), locally_normalised(0.6 * image + 0.2)
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.99
    assert other.std() == pytest.approx(one.std().item(), rel=0.25)


def test_moved_by_whole_cells_and_within_the_border() -> None:
    feature = torch.rand(1, 3, 8, 8)
    found = moved(feature, torch.tensor([2.0, -1]).view(1, 2, 1, 1).expand(1, 2, 8, 8))
    wanted = torch.cat([feature[..., :1, 2:], feature[..., :-1, 2:]], dim=2)
    torch.testing.assert_close(found[..., :6], wanted, rtol=0, atol=1e-5)


def test_it_learns_to_follow_shifts(matcher: Matcher) -> None:
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(matcher.parameters(), 3e-3)
    rng, errors, images = np.random.default_rng(0), [], speckles(40)
    valid = torch.ones(4, 16, 16, dtype=torch.bool)
    for _ in range(40):
        reference = images[rng.integers(0, 40, 4)]
        shifts = rng.integers(-5, 6, (4, 2))  # (x, y), pixels
        pairs = zip(reference, shifts.tolist(), strict=True)
        driving = torch.stack([image.roll((-y, -x), (1, 2)) for image, (x, y) in pairs])
        known = make_grid(16, 16, "half_pixel") + torch.tensor(shifts * 2 / 64)[:, None, None]
        match = run(matcher, driving, reference)
        loss, doubt = losses.endpoint(match, known.float(), valid, torch.ones(4))
        optimizer.zero_grad()
        (loss + 0.1 * doubt).backward()
        optimizer.step()
        wanted = torch.tensor(shifts / 8)[:, :, None, None]  # cells of an eighth of the size
        errors.append((match.fine.detach() - wanted).square().sum(1).sqrt().mean().item())
    assert np.mean(errors[-10:]) < 0.7 * np.mean(errors[:10])


def test_what_a_head_is_given_does_not_grow_with_the_descriptors(matcher: Matcher) -> None:
    """Only their direction is compared, so nothing else keeps them small; a head died of it."""
    given: list[Tensor] = []
    matcher.correct.mix.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    one, other = (matcher.encoder(image[None]) for image in speckles(2))
    for factor in (1.0, 100.0):
        matcher(type(one)(*(factor * x for x in one)).unit(), other.unit())
    torch.testing.assert_close(given[0], given[2], rtol=1e-3, atol=1e-3)
    assert 0.2 < given[0].std() < 2


def test_a_correction_can_always_learn(matcher: Matcher) -> None:
    last: list[Tensor] = []
    matcher.correct.out.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    images = speckles(2)
    run(matcher, images[:1], images[1:])
    assert 0.3 < last[0].std() < 10  # as loud as what it was given
    torch.nn.init.constant_(matcher.correct.near.bias, -100.0)
    torch.nn.init.normal_(matcher.correct.out.weight)
    run(matcher, images[:1], images[1:]).fine.sum().backward()
    weight = matcher.correct.mix.weight
    assert weight.grad is not None and weight.grad.abs().max() > 0  # a plain ReLU would be dead


def test_far_cells_have_no_share_and_no_denormals(monkeypatch: pytest.MonkeyPatch) -> None:
    exp = Tensor.exp
    shares: list[Tensor] = []
    monkeypatch.setattr(Tensor, "exp", lambda self: shares.append(exp(self)) or shares[-1])
    seen = F.normalize(torch.randn(1, 16, 32, 32), dim=1)
    Matcher(MatcherConfig(fine=8, coarse=16), 1, 256).search(seen, seen)
    assert shares[-1].shape == (1, 1024, 1024)
    assert shares[-1].min() >= torch.finfo(torch.float32).tiny


@pytest.mark.parametrize("sharpness", [2.6, 6.0], ids=["usual", "far too sharp"])
def test_the_search_is_a_softmax_over_all_cells(sharpness: float) -> None:
    one, other = (F.normalize(torch.randn(1, 16, 32, 32), dim=1) for _ in range(2))
    matcher = Matcher(MatcherConfig(fine=8, coarse=16), 1, 256)
    torch.nn.init.constant_(matcher.sharpness, sharpness)
    grid = matcher.grid
    likeness = matcher.sharpness.exp().clamp(max=80) * one.flatten(2)[0].T @ other.flatten(2)[0]
    far = (grid[:, None] - grid).square().sum(-1)
    share = (likeness - matcher.nearness * far).clamp(min=-60).softmax(-1)
    expected = ((share @ grid - grid) * 16).T.view(1, 2, 32, 32)
    found = matcher.search(one, other)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    found.sum().backward()
    assert matcher.sharpness.grad is not None and matcher.sharpness.grad.isfinite()


SIZE = 64
NAMES = ("apex", "neck")
FAMILY = MatchingFamily()


def config(count: int, weight: float = 1.0) -> Config:
    return small_runs.config(
        f"model.landmarks.count={count}", f"loss.landmarks={weight}", preset="lite"
    )


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
    torch.manual_seed(0)
    detector = LandmarkDetector(LandmarkConfig(2, width=8), 1, SIZE)
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
    pairs = small_runs.pairs_of(*noise(2, 2, 1, SIZE, SIZE), labels, seen=True)
    settings = config(count, weight)
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
    assert FAMILY.with_labels(config(0, 0.0), NAMES) == config(0, 0.0)
    for model, names in ((decided.model, NAMES), (decided.model, ()), (config(0).model, NAMES)):
        FAMILY.check_labels(model, names)
    with pytest.raises(ConfigError):
        FAMILY.check_labels(decided.model, (*NAMES, "third"))
