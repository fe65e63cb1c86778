"""Splines read what they should; folds, roughness and quality are what they say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching.fields import (
    Spline,
    determinant,
    folding,
    judge,
    roughness,
)


def places(cells: int) -> Tensor:
    return make_grid(cells, cells, "half_pixel")[None]


@pytest.mark.parametrize("stiff", [None, 8, 4])
def test_a_spline_keeps_a_ramp_but_at_the_border(stiff: int | None) -> None:
    slope = torch.tensor([[0.3, -0.1], [0.2, 0.4]])
    found = Spline(8, 64, stiff)(places(8) @ slope) - places(64)
    margin = 64 // (stiff or 8) * 3 // 2
    inside = slice(margin, -margin)
    wanted = places(64) @ slope
    torch.testing.assert_close(
        found[:, inside, inside], wanted[:, inside, inside], rtol=0, atol=1e-6
    )
    assert found.abs().max() < wanted.abs().max()  # beyond the outermost cells it goes on flat


def test_a_stiff_spline_does_not_follow_single_cells() -> None:
    assert torch.equal(Spline(8, 32, 4)(torch.zeros(1, 8, 8, 2)), places(32))
    sign = torch.tensor([1.0, -1.0]).repeat(4)
    jagged = (0.1 * sign[:, None] * torch.ones(8))[None, ..., None].expand(1, 8, 8, 2)
    assert Spline(8, 32).smooth(jagged).abs().max() > 0.02
    assert Spline(8, 32, 4).smooth(jagged).abs().max() < 1e-7


def test_the_determinant_is_the_change_of_area() -> None:
    z = places(8)
    turn = torch.tensor([[0.8, 0.6], [-0.6, 0.8]])
    flip = torch.tensor([[-1.0, 0.0], [0.0, 1.0]])
    for matrix, wanted in ((torch.eye(2), 1), (2 * torch.eye(2), 4), (turn, 1), (flip, -1)):
        found = determinant(z @ matrix - z)
        assert found.shape == (1, 7, 7)
        torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=0, atol=1e-5)


def test_folding_and_roughness_are_what_they_say() -> None:
    z = places(8)
    moved = torch.tensor([0.3, -0.2]).expand(1, 8, 8, 2)
    assert folding(moved) == roughness(moved) == 0
    assert roughness(0.4 * z) < 1e-4
    assert folding(z).item() == pytest.approx(0.1, abs=1e-5)  # areas four times as large
    assert folding(z * torch.tensor([-2.0, 0.0])).item() == pytest.approx(1.3, abs=1e-5)
    step = torch.zeros(1, 8, 8, 2)
    step[:, :, ::2, 0] = 1 / 128  # every other column by one pixel, along x
    assert roughness(step).item() == pytest.approx(2 / 2)  # half of the numbers are those of y


def test_the_four_numbers_of_quality() -> None:
    still, field = torch.zeros(8, 8, 2), torch.zeros(8, 8, 2)
    field[5, 5] = torch.tensor([0.6, 0.8])  # a whole half of the picture: two cells fold
    deformation = places(4).repeat(2, 1, 1, 1)
    deformation[1, :2, 0, 0] = -1.01
    deformation[1, 0, 1, 1] = 1.5
    confidence = torch.full((2, 1, 8, 8), 0.25)
    confidence[1, :, :4] = 0.75
    found = judge(torch.stack([still, field]), confidence, deformation)
    assert found.confidence.tolist() == pytest.approx([0.25, 0.5])
    assert found.longest.tolist() == pytest.approx([0, 0.5])
    assert found.unseen.tolist() == pytest.approx([0, 3 / 16])
    folds = (determinant(field[None]) < 0.1).sum().item()
    assert folds > 0
    assert found.folded.tolist() == pytest.approx([0, folds / 49])
