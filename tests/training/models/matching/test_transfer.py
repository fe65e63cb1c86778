"""What passes, and how it is put upon the source."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sonomime.training.config import MatcherConfig
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching.matcher import Match
from sonomime.training.models.matching.transfer import (
    MOST,
    Passed,
    Passing,
    moved_place,
    put,
)

ONE = torch.ones(1)
OWN = make_grid(8, 8, "half_pixel")[None]


def passed(shading: int = 4) -> Passed:
    random = torch.Generator().manual_seed(0)
    return Passed(
        torch.randn(1, 8, 8, 2, generator=random) / 10,
        torch.rand(1, 1, 8, 8, generator=random),
        torch.randn(1, 1, shading, shading, generator=random),
    )


@pytest.mark.parametrize("shading", [1, 4, 8])
def test_each_cell_in_its_place_changes_nothing(shading: int) -> None:
    before = passed(shading)
    for found, wanted in zip(put(before, OWN, ONE, ONE), before, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_an_alignment_says_where_motion_is_read() -> None:
    before = passed()
    found = put(
        before, OWN + torch.tensor([4 / 8, 0]), ONE, ONE
    )  # two cells of motion, one of light
    close = {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(found.displacement[:, :, :6], before.displacement[:, :, 2:], **close)
    torch.testing.assert_close(found.confidence[..., :6], before.confidence[..., 2:], **close)
    torch.testing.assert_close(found.shading[..., :3], before.shading[..., 1:], **close)
    last = before.displacement[:, :, 7:].expand(-1, -1, 2, -1)
    torch.testing.assert_close(found.displacement[:, :, 6:], last, **close)


@pytest.mark.parametrize(
    ("scale", "shade", "factor"), [(0.5, 1, 0.5), (3, 1, 1), (0.5, 0.5, 0.25), (1, 0, 0)]
)
def test_scale_and_shade(scale: float, shade: float, factor: float) -> None:
    # A displacement of many cells' length leads to the edge, where all is as at the edge.
    still = torch.zeros(1, 8, 8, 2)
    before = passed()._replace(displacement=still)
    close = {"rtol": 0, "atol": 1e-4}
    found = put(before, OWN, scale * ONE, shade * ONE)
    torch.testing.assert_close(found.confidence, before.confidence, **close)
    torch.testing.assert_close(found.shading, factor * before.shading, **close)
    even = still + torch.tensor([0.1, -0.2])
    found = put(before._replace(displacement=even), OWN, scale * ONE, shade * ONE)
    torch.testing.assert_close(found.displacement, scale * even, **close)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_motion_is_read_where_it_has_led_to(scale: float) -> None:
    """Of a smooth motion and an affine alignment the fixed point is known: one step comes near."""
    cells = make_grid(64, 64, "half_pixel")[None]

    def motion(at: Tensor) -> Tensor:
        return torch.stack([0.15 * torch.sin(2 * at[..., 1]), 0.1 * torch.cos(3 * at[..., 0])], -1)

    def alignment(at: Tensor) -> Tensor:
        return at @ torch.tensor([[0.7, 0.1], [-0.1, 0.8]]) + torch.tensor([0.05, -0.1])

    displacement, aligned = motion(cells).permute(0, 3, 1, 2), alignment(cells)
    place = aligned
    for _ in range(50):
        place = alignment(cells + scale * motion(place)) - motion(place)
    found = moved_place(displacement, aligned, scale * ONE)
    inner = (cells.abs() < 0.5).all(dim=-1) & (place.abs() < 0.9).all(dim=-1)
    error, without = (
        (motion(x) - motion(place)).norm(dim=-1)[inner].mean() for x in (found, aligned)
    )
    assert error < 0.25 * without


def lights(level: float) -> Tensor:
    return torch.full((1, 1, 32, 32), level)


def passing(shading: int = 4) -> Passing:
    return Passing(MatcherConfig(grid=8, stiff=4, shading=shading), 128)


def test_shading_is_the_log_of_a_bounded_ratio_of_odds() -> None:
    between = passing().light_between
    found = between(lights(0.5), lights(0.25))
    assert found.shape == (1, 1, 4, 4)
    torch.testing.assert_close(found, torch.full_like(found, math.log(3)), rtol=0.07, atol=0)
    assert (between(lights(0), lights(0)) == 0).all()
    assert (between(lights(1), lights(0)) == MOST).all()
    assert (between(lights(0), lights(1)) == -MOST).all()


def match(x: float = 0, y: float = 0, log_error: float = 0) -> Match:
    fine = torch.tensor([x, y]).view(1, 2, 1, 1).expand(1, 2, 16, 16)
    return Match(fine, fine, fine, torch.full((1, 1, 16, 16), log_error))


def test_a_match_is_averaged_over_cells() -> None:
    found = passing()(match(2, -1, math.log(3)), lights(0.5), lights(0.5))
    assert found.displacement.shape == (1, 8, 8, 2)
    assert torch.equal(found.displacement, torch.tensor([2 / 8, -1 / 8]).expand(1, 8, 8, 2))
    torch.testing.assert_close(found.confidence, torch.full((1, 1, 8, 8), 0.25))
    fine = torch.zeros(1, 2, 16, 16)
    fine[..., ::2] = 4.0
    mixed = passing()(match()._replace(fine=fine), lights(0.5), lights(0.5))
    torch.testing.assert_close(mixed.displacement, torch.full((1, 8, 8, 2), 2 * 2 / 16))


def test_what_moved_is_no_shading() -> None:
    reference = torch.linspace(0.3, 0.9, 32).expand(1, 1, 32, 32)
    driving = torch.roll(reference, -4, 3)
    still = passing()(match(), driving, reference).shading[..., :3]
    found = passing()(match(2), driving, reference).shading[..., :3]
    assert still.min() > 0.08 and found.abs().max() < 1e-4
