"""What passes, how it is put upon the source, measures of displacements, and what losses reach."""

from __future__ import annotations

import math

import pytest
import torch
from lively import SMALL_LITE, noise
from torch import Tensor

from sonomime.runtime.passed import put_on_source
from sonomime.training.config import Config
from sonomime.training.config_file import load_config
from sonomime.training.data.batch import PairBatch
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import objective as losses
from sonomime.training.models.matching.matcher import Match, Seen
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.models.matching.objective import MatchingObjective
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

from ...small_runs import pairs_of

ONE = torch.ones(1)
CLOSE = {"rtol": 0, "atol": 1e-5}


def places(cells: int) -> Tensor:
    return make_grid(cells, cells, "half_pixel")[None]


def passed() -> Passed:
    torch.manual_seed(0)
    light = torch.randn(1, 1, 4, 4)
    return Passed(torch.randn(1, 8, 8, 2) / 10, torch.rand(1, 1, 8, 8), light)


# -- put upon the source ---------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "shade"), [(1.0, 1.0), (1.7, 0.5), (0.3, 0.0)])
def test_a_template_is_put_on_a_source_as_a_frame_is(scale: float, shade: float) -> None:
    before, alignment = passed(), places(8) + noise(1, 8, 8, 2) / 5 - 0.1
    wanted = put(before, alignment, scale * ONE, shade * ONE)._asdict()
    numbers = {name: value.numpy() for name, value in before._asdict().items()}
    found = put_on_source(numbers, alignment.numpy(), scale, shade)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(torch.from_numpy(value), wanted[name], **CLOSE)


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


@pytest.mark.parametrize("scale", [0.5, 2.0])
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


LEAD = {"length", "flow", "doubt", "folding", "roughness"}
PIXELS = {"motion", "structure", "pixels", "sharpness"}
FLOW = ("loss.flow=2", "loss.flow_until=100", "loss.flow_exact=0.5", "loss.pixels_from=50")
CONFIG: Config = load_config("lite", (*SMALL_LITE, *FLOW))


def batch(**changed: object) -> PairBatch:
    """Two pairs: of the second the flow is exact, and it is a bend."""
    flow = make_grid(32, 32, "half_pixel").expand(2, -1, -1, -1) + 0.1
    valid, marks = torch.ones(2, 32, 32, dtype=torch.bool), torch.tensor([False, True])
    known = {"flow": flow, "flow_valid": valid, "flow_exact": marks, "bent": marks}
    return pairs_of(*noise(2, 2, 1, 128, 128))._replace(**known | changed)


def step_of(step: int, pairs: PairBatch) -> tuple[dict[str, torch.Tensor], MatchingModel]:
    torch.manual_seed(0)
    model = MatchingModel(CONFIG.model)
    found = MatchingObjective(CONFIG)(model, pairs, step, None).losses
    assert all(torch.isfinite(loss) for loss in found.values())
    return found, model


def test_flow_leads_and_pixels_follow() -> None:
    found = {step: step_of(step, batch())[0] for step in (0, 50, 100, 400)}
    assert [each.keys() for each in found.values()] == [LEAD, LEAD, *[LEAD | PIXELS] * 2]
    # Weights of measured and exact flow: 2 and 2, 1 and 1, then 0 and what is left of exact.
    assert found[50]["flow"].item() == pytest.approx(found[0]["flow"].item() / 2)
    assert found[100]["flow"] == found[400]["flow"] > 0
    assert found[400]["pixels"].item() == pytest.approx(6 * found[100]["pixels"].item())
    # Measured flow ends, but doubt is learned to the end.
    over, _ = step_of(100, batch(flow_exact=torch.tensor([False, False])))
    assert over["flow"] == 0 and over["doubt"] > 0
    without, _ = step_of(0, batch(flow=None, flow_valid=None, flow_exact=None))
    assert without.keys() == LEAD - {"flow", "doubt"}


def test_bends_have_no_pixels() -> None:
    assert step_of(400, batch(bent=torch.tensor([True, True])))[0]["pixels"] == 0
    spoilt = batch()
    spoilt.driving[1] = 1.0
    one, again = (step_of(400, pairs)[0]["pixels"].item() for pairs in (batch(), spoilt))
    assert again == pytest.approx(one) and one > 0
    real = noise(2, 1, 16, 16)
    wrong = real.clone()
    wrong[:, 0, 8, 8] += 1  # a blur spreads it, but keeps its sum
    counts = torch.tensor([1.0, 0])
    assert losses.picture_cost(real, real, counts) == 0
    found = losses.picture_cost(wrong, real, counts)
    assert found.item() == pytest.approx((1 + 2) / 16**2 / 2, rel=1e-4)


def test_each_loss_reaches_its_own_network_alone() -> None:
    found, model = step_of(400, batch())
    final, matcher = model.generator.final.bias, model.matcher.correct.out.weight
    reached = {}
    for name in sorted(PIXELS):
        gate, match = torch.autograd.grad(
            found[name], (final, matcher), retain_graph=True, allow_unused=True
        )
        layers = [False] * 3 if gate is None else [bool(value) for value in gate != 0]
        reached[name] = layers, match is not None and bool(match.any())
    assert reached == {
        "motion": ([False, False, False], True),
        "structure": ([False, False, False], True),
        "pixels": ([True, True, False], False),  # gain and offset
        "sharpness": ([False, False, True], False),  # the gate
    }
    torch.stack(list(found.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    found, model = step_of(0, batch())  # flow alone teaches the matcher alone
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.matcher.parameters())


def endpoint(
    error: float, log_error: float = 0, valid: float = 1, weight: float = 1
) -> tuple[float, float]:
    """The loss of a match that is off by some pixels of 256 along x where nothing moves."""
    field = torch.tensor([error / 32, 0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    found = Match(field, field, field, torch.full((1, 1, 8, 8), log_error))
    still, trusted = make_grid(16, 16, "half_pixel")[None], torch.full((1, 16, 16), valid).bool()
    return tuple(x.item() for x in losses.endpoint(found, still, trusted, torch.tensor([weight])))


def test_the_endpoint_error_is_in_pixels_of_256_and_doubt_least_where_it_is_known() -> None:
    off = math.hypot(3, 0.1) * sum(losses.LEVELS)
    assert endpoint(0)[0] == pytest.approx(0.1 * sum(losses.LEVELS))
    assert endpoint(3)[0] == pytest.approx(off)
    assert endpoint(3, weight=2)[0] == pytest.approx(2 * off)
    assert endpoint(3, weight=0)[0] == 0
    assert endpoint(3, valid=0) == (0, 0)
    for error in (0.5, 3.0):
        known = math.log(math.hypot(error, 0.1))
        least = endpoint(error, known, weight=0)[1]  # whether motion learns or not
        assert least == pytest.approx(1 + known, abs=1e-4)
        assert all(endpoint(error, known + x)[1] > least + 0.05 for x in (-0.5, 0.5))


def test_the_descriptors_length_is_held_and_nothing_else_is() -> None:
    """Only their direction counts: without this they grow until half precision cannot hold them."""
    for size in (0.01, 300.0):
        descriptors = torch.nn.functional.normalize(noise(2, 8, 4, 4) - 0.5, dim=1)
        descriptors = (size * descriptors).requires_grad_()
        losses.length(descriptors).backward()
        assert descriptors.grad is not None
        along = (descriptors.grad * descriptors).sum(dim=1)
        across = descriptors.grad - along[:, None] * descriptors / size**2
        assert (along.sign() == (1 if size > 1 else -1)).all()
        assert across.abs().max() < 1e-4 * descriptors.grad.abs().max()
    assert losses.length(torch.zeros(1, 8, 4, 4)).isfinite()
