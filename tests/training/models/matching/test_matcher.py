"""The matcher: what it gives untrained, and that it learns."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from sonomime.training.config import MatcherConfig
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import losses
from sonomime.training.models.matching.matcher import Match, Matcher, locally_normalised, moved

SMALL = MatcherConfig(fine=8, coarse=16)


def speckles(size: int, count: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((count, size, size), np.float32)
    soft = np.stack([cv2.GaussianBlur(each, (0, 0), 2.0) for each in noise])
    return np.asarray((soft - soft.min()) / (soft.max() - soft.min()), np.float32)


def run(matcher: Matcher, driving: Tensor, reference: Tensor) -> Match:
    found: Match = matcher(matcher.encoder(driving), matcher.encoder(reference))
    return found


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_flat_frame_gives_finite_numbers(level: float) -> None:
    matcher = Matcher(SMALL, 1, 64)
    flat = torch.full((1, 1, 64, 64), level)
    match = run(matcher, flat, flat)
    assert all(torch.isfinite(field).all() for field in match)
    assert torch.equal(match.coarse, match.fine)  # corrections begin at zero


def test_gain_and_offset_hardly_matter_to_what_is_seen() -> None:
    image = 0.3 + 0.4 * torch.from_numpy(speckles(64, 1))[:, None]
    one, other = locally_normalised(image), locally_normalised(0.6 * image + 0.2)
    assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.99
    assert other.std() == pytest.approx(one.std().item(), rel=0.25)


def test_moved_by_whole_cells() -> None:
    feature = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = moved(feature, torch.tensor([2.0, -1]).view(1, 2, 1, 1).expand(1, 2, 8, 8))
    torch.testing.assert_close(found[..., 1:, :6], feature[..., :-1, 2:], rtol=0, atol=1e-5)
    border = feature[..., :1, 2:]
    torch.testing.assert_close(found[..., :1, :6], border, rtol=0, atol=1e-5)


def test_it_learns_to_follow_shifts() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    matcher = Matcher(SMALL, 1, 64)
    optimizer = torch.optim.Adam(matcher.parameters(), 3e-3)
    rng, errors = np.random.default_rng(0), []
    images = speckles(64, 40)
    valid = torch.ones(4, 16, 16, dtype=torch.bool)
    for _ in range(80):
        reference = images[rng.integers(0, 40, 4)]
        shifts = rng.integers(-5, 6, (4, 2))  # (x, y), pixels
        pairs = zip(reference, shifts, strict=True)
        driving = np.stack([np.roll(image, (-y, -x), (0, 1)) for image, (x, y) in pairs])
        known = make_grid(16, 16, "half_pixel") + torch.tensor(shifts * 2 / 64)[:, None, None]
        match = run(matcher, *(torch.from_numpy(x)[:, None] for x in (driving, reference)))
        loss, doubt = losses.endpoint(match, known.float(), valid, torch.ones(4))
        optimizer.zero_grad()
        (loss + 0.1 * doubt).backward()
        optimizer.step()
        wanted = torch.tensor(shifts / 8)[:, :, None, None]  # cells of an eighth of the size
        errors.append((match.fine.detach() - wanted).square().sum(1).sqrt().mean().item())
    assert np.mean(errors[-10:]) < 0.7 * np.mean(errors[:10])


def test_what_a_head_is_given_does_not_grow_with_the_descriptors() -> None:
    """Only their direction is compared, so nothing else keeps them small; a head died of it."""
    matcher = Matcher(SMALL, 1, 64)
    images = torch.from_numpy(speckles(64, 2))[:, None]
    given: list[torch.Tensor] = []
    matcher.correct.mix.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    seen = matcher.encoder(images[:1])
    for factor in (1.0, 100.0):
        matcher(type(seen)(*(factor * x for x in seen)), matcher.encoder(images[1:]))
    torch.testing.assert_close(given[0], given[2], rtol=1e-3, atol=1e-3)
    assert 0.2 < given[0].std() < 2


def test_a_correction_can_always_learn() -> None:
    matcher = Matcher(SMALL, 1, 64)
    last: list[torch.Tensor] = []
    matcher.correct.out.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
    images = torch.from_numpy(speckles(64, 2))[:, None]
    run(matcher, images[:1], images[1:])
    assert 0.3 < last[0].std() < 10  # as loud as what it was given
    torch.nn.init.constant_(matcher.correct.near.bias, -100.0)
    run(matcher, images[:1], images[1:])[2].sum().backward()
    weight = matcher.correct.mix.weight
    torch.nn.init.normal_(matcher.correct.out.weight)
    run(matcher, images[:1], images[1:])[2].sum().backward()
    assert weight.grad is not None and weight.grad.abs().max() > 0  # a plain ReLU would be dead


def test_far_cells_have_no_share_and_no_denormals() -> None:
    matcher = Matcher(SMALL, 1, 256)
    shares: list[torch.Tensor] = []
    softmax = torch.Tensor.softmax

    def kept(self: torch.Tensor, dim: int) -> torch.Tensor:
        shares.append(softmax(self, dim))
        return shares[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "softmax", kept)
        seen = torch.nn.functional.normalize(torch.randn(1, 16, 32, 32), dim=1)
        matcher.search(seen, seen)
    least = shares[0][shares[0] > 0].min()
    assert least >= torch.finfo(torch.float32).tiny and (shares[0] > 0).all()
