"""What passes, how it is put upon the source, and the splines and measures of displacements."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching.matcher import Match, Seen
from sonomime.training.models.matching.transfer import (
    MOST,
    Passed,
    Spline,
    determinant,
    folding,
    judge,
    light_between,
    moved_place,
    passed_on,
    put,
    roughness,
)

ONE = torch.ones(1)
CLOSE = {"rtol": 0, "atol": 1e-5}


def places(cells: int) -> Tensor:
    return make_grid(cells, cells, "half_pixel")[None]


def passed() -> Passed:
    torch.manual_seed(0)
    light = torch.randn(1, 1, 4, 4)
    return Passed(torch.randn(1, 8, 8, 2) / 10, torch.rand(1, 1, 8, 8), light)


# -- put upon the source ---------------------------------------------------------------------------


def test_an_alignment_says_where_motion_is_read() -> None:
    before = passed()
    # Two cells of motion, one of light.
    found = put(before, places(8) + torch.tensor([4 / 8, 0]), ONE, ONE)
    torch.testing.assert_close(found.displacement[:, :, :6], before.displacement[:, :, 2:], **CLOSE)
    torch.testing.assert_close(found.confidence[..., :6], before.confidence[..., 2:], **CLOSE)
    torch.testing.assert_close(found.shading[..., :3], before.shading[..., 1:], **CLOSE)
    last = before.displacement[:, :, 7:].expand(-1, -1, 2, -1)
    torch.testing.assert_close(found.displacement[:, :, 6:], last, **CLOSE)


@pytest.mark.parametrize(
    ("scale", "shade", "factor"), [(0.5, 1, 0.5), (3, 1, 1), (0.5, 0.5, 0.25), (1, 0, 0)]
)
def test_scale_and_shade(scale: float, shade: float, factor: float) -> None:
    still = passed()._replace(displacement=torch.zeros(1, 8, 8, 2))
    found = put(still, places(8), scale * ONE, shade * ONE)
    torch.testing.assert_close(found.confidence, still.confidence, **CLOSE)
    torch.testing.assert_close(found.shading, factor * still.shading, **CLOSE)
    even = still.displacement + torch.tensor([0.1, -0.2])
    found = put(still._replace(displacement=even), places(8), scale * ONE, shade * ONE)
    torch.testing.assert_close(found.displacement, scale * even, **CLOSE)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_motion_is_read_where_it_has_led_to(scale: float) -> None:
    """Of a smooth motion and an affine alignment the fixed point is known: one step comes near."""
    cells = places(64)

    def motion(at: Tensor) -> Tensor:
        return torch.stack([0.15 * torch.sin(2 * at[..., 1]), 0.1 * torch.cos(3 * at[..., 0])], -1)

    def alignment(at: Tensor) -> Tensor:
        return at @ torch.tensor([[0.7, 0.1], [-0.1, 0.8]]) + torch.tensor([0.05, -0.1])

    aligned = place = alignment(cells)
    for _ in range(50):
        place = alignment(cells + scale * motion(place)) - motion(place)
    found = moved_place(motion(cells).permute(0, 3, 1, 2), aligned, scale * ONE)
    inner = (cells.abs() < 0.5).all(dim=-1) & (place.abs() < 0.9).all(dim=-1)
    error, without = (
        (motion(x) - motion(place)).norm(dim=-1)[inner].mean() for x in (found, aligned)
    )
    assert error < 0.25 * without


# -- what passes -----------------------------------------------------------------------------------


def reduced(fine: Tensor, driving: Tensor, reference: Tensor, log_error: float = 0) -> Passed:
    match = Match(fine, fine, fine, torch.full((1, 1, 16, 16), log_error))
    seen = (Seen(fine, fine, light.expand(1, 1, 32, 32)) for light in (driving, reference))
    return passed_on(match, *seen, Spline(8, 32), 4)


def test_a_match_is_averaged_over_cells() -> None:
    grey, fine = torch.tensor(0.5), torch.zeros(1, 2, 16, 16)
    found = reduced(fine + torch.tensor([2.0, -1]).view(2, 1, 1), grey, grey, math.log(3))
    assert torch.equal(found.displacement, torch.tensor([2 / 8, -1 / 8]).expand(1, 8, 8, 2))
    torch.testing.assert_close(found.confidence, torch.full((1, 1, 8, 8), 0.25))
    fine[..., ::2] = 4.0
    mixed = reduced(fine, grey, grey).displacement
    torch.testing.assert_close(mixed, torch.full((1, 8, 8, 2), 2 * 2 / 16))


def test_shading_is_the_log_of_a_bounded_ratio_of_odds_of_what_did_not_move() -> None:
    levels = {level: torch.full((1, 1, 32, 32), level) for level in (0.0, 0.25, 0.5, 1.0)}
    for driving, reference, wanted in (
        (0.5, 0.25, math.log(3)), (0.0, 0.0, 0.0), (1.0, 0.0, MOST), (0.0, 1.0, -MOST),
    ):  # fmt: skip
        found = light_between(levels[driving], levels[reference], 4)
        torch.testing.assert_close(found, torch.full((1, 1, 4, 4), wanted), rtol=0.07, atol=0)
    reference = torch.linspace(0.3, 0.9, 32).expand(1, 1, 32, 32)
    driving, fine = torch.roll(reference, -4, 3), torch.zeros(1, 2, 16, 16)
    assert reduced(fine, driving, reference).shading[..., :3].min() > 0.08
    fine[:, 0] = 2
    assert reduced(fine, driving, reference).shading[..., :3].abs().max() < 1e-4


# -- displacements ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stiff", [None, 8, 4])
def test_a_spline_keeps_a_ramp_but_at_the_border(stiff: int | None) -> None:
    slope = torch.tensor([[0.3, -0.1], [0.2, 0.4]])
    found, wanted = Spline(8, 64, stiff)(places(8) @ slope) - places(64), places(64) @ slope
    margin = 64 // (stiff or 8) * 3 // 2
    inside = (slice(None), slice(margin, -margin), slice(margin, -margin))
    torch.testing.assert_close(found[inside], wanted[inside], rtol=0, atol=1e-6)
    assert found.abs().max() < wanted.abs().max()  # beyond the outermost cells it goes on flat
    jagged = torch.tensor([1.0, -1.0]).repeat(4).expand(2, 1, 8, 8).permute(1, 2, 3, 0)
    follows = Spline(8, 64, stiff).smooth(jagged).abs().max()
    assert follows < 1e-6 if stiff == 4 else follows > 0.2, "single cells"


def test_the_determinant_is_the_change_of_area_and_what_costs() -> None:
    z = places(8)
    turn, flip = torch.tensor([[0.8, 0.6], [-0.6, 0.8]]), torch.diag(torch.tensor([-1.0, 1.0]))
    for matrix, wanted in ((torch.eye(2), 1), (2 * torch.eye(2), 4), (turn, 1), (flip, -1)):
        found = determinant(z @ matrix - z)
        torch.testing.assert_close(found, torch.full((1, 7, 7), float(wanted)), **CLOSE)
    moved = torch.tensor([0.3, -0.2]).expand(1, 8, 8, 2)
    assert folding(moved) == roughness(moved) == 0
    assert roughness(0.4 * z) < 1e-4
    assert folding(z).item() == pytest.approx(0.1, abs=1e-5)  # areas four times as large
    assert folding(z * torch.tensor([-2.0, 0.0])).item() == pytest.approx(1.3, abs=1e-5)
    step = torch.zeros(1, 8, 8, 2)
    step[:, :, ::2, 0] = 1 / 128  # every other column by one pixel, along x
    assert roughness(step).item() == pytest.approx(2 / 2)  # half of the numbers are those of y


def test_the_four_numbers_of_quality() -> None:
    fields = torch.zeros(2, 8, 8, 2)
    fields[1, 5, 5] = torch.tensor([0.6, 0.8])  # a whole half of the picture: cells fold
    deformation = places(4).repeat(2, 1, 1, 1)
    deformation[1, :2, 0, 0] = -1.01
    deformation[1, 0, 1, 1] = 1.5
    confidence = torch.full((2, 1, 8, 8), 0.25)
    confidence[1, :, :4] = 0.75
    folds = (determinant(fields[1:]) < 0.1).sum().item()
    assert folds > 0
    calm, wild = judge(fields, confidence, deformation).tolist()
    assert calm == pytest.approx([0.25, 0, 0, 0])
    assert wild == pytest.approx([0.5, 0.5, folds / 49, 3 / 16])
