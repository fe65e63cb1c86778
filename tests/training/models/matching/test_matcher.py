"""The matcher: what it compares, what it gives untrained, and that it learns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sonomime.training.config import MatcherConfig
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import objective as losses
from sonomime.training.models.matching.matcher import (
    LocalCorrelation,
    Match,
    Matcher,
    locally_normalised,
    moved,
)


def speckles(count: int) -> Tensor:
    noise = np.random.default_rng(0).random((count, 64, 64), np.float32)
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 2.0) for each in noise])
    return torch.from_numpy((soft - soft.min()) / (soft.max() - soft.min()))[:, None]


@pytest.fixture
def matcher() -> Matcher:
    torch.manual_seed(0)
    return Matcher(MatcherConfig(fine=8, coarse=16), 1, 64)


def run(matcher: Matcher, driving: Tensor, reference: Tensor) -> Match:
    found: Match = matcher(matcher.encoder(driving), matcher.encoder(reference))
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
        matcher(type(one)(*(factor * x for x in one)), other)
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
    softmax = Tensor.softmax
    shares: list[Tensor] = []
    monkeypatch.setattr(
        Tensor, "softmax", lambda self, dim: shares.append(softmax(self, dim)) or shares[-1]
    )
    seen = F.normalize(torch.randn(1, 16, 32, 32), dim=1)
    Matcher(MatcherConfig(fine=8, coarse=16), 1, 256).search(seen, seen)
    assert shares[0].min() >= torch.finfo(torch.float32).tiny
