"""Which losses count when, what they reach, and what they learn."""

from __future__ import annotations

import math

import pytest
import torch
from lively import SMALL_LITE

from sonomime.training.config import Config, load_config
from sonomime.training.data.batch import PairBatch
from sonomime.training.models.base import StepResult
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import losses
from sonomime.training.models.matching.matcher import Match
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.models.matching.objective import MatchingObjective

SIZE, QUARTER = 128, 32
LEAD = {"length", "flow", "doubt", "folding", "roughness"}
PIXELS = {"motion", "structure", "pixels", "sharpness"}
FLOW = ("loss.flow=2", "loss.flow_until=100", "loss.flow_exact=0.5", "loss.pixels_from=50")


def config(*overrides: str) -> Config:
    return load_config("lite", (*SMALL_LITE, *FLOW, *overrides))


def batch(**changed: object) -> PairBatch:
    """Two pairs: of the second the flow is exact, and it is a bend."""
    random = torch.Generator().manual_seed(0)
    source, driving = torch.rand(2, 2, 1, SIZE, SIZE, generator=random)
    none, unseen = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool)
    flow = make_grid(QUARTER, QUARTER, "half_pixel").expand(2, -1, -1, -1) + 0.1
    valid = torch.ones(2, QUARTER, QUARTER, dtype=torch.bool)
    marks = torch.tensor([False, True])
    whole = PairBatch(
        source, driving, none, none, unseen, unseen, flow, valid, marks, marks, unseen, unseen
    )
    return whole._replace(**changed)


def step_of(step: int, pairs: PairBatch, settings: Config) -> tuple[StepResult, MatchingModel]:
    torch.manual_seed(0)
    model = MatchingModel(settings.model)
    result: StepResult = MatchingObjective(settings)(model, pairs, step, None)
    assert all(torch.isfinite(loss) for loss in result.losses.values())
    return result, model


def test_flow_leads_and_pixels_follow() -> None:
    found = {step: step_of(step, batch(), config())[0].losses for step in (0, 50, 51, 100, 400)}
    assert [each.keys() - LEAD for each in found.values()] == [set(), set(), *[PIXELS] * 3]
    assert all(each.keys() >= LEAD for each in found.values())
    # Weights of measured and exact flow: 2 and 2, 1 and 1, then 0 and what is left of exact.
    assert found[50]["flow"].item() == pytest.approx(found[0]["flow"].item() / 2)
    assert found[100]["flow"] == found[400]["flow"] > 0
    assert found[400]["pixels"].item() == pytest.approx(6 * found[100]["pixels"].item())
    assert found[400]["doubt"] > 0


def test_measured_flow_ends_but_doubt_is_learned_to_the_end() -> None:
    measured = batch(flow_exact=torch.tensor([False, False]))
    over = step_of(100, measured, config())[0].losses
    assert over["flow"] == 0 and over["doubt"] > 0
    without = batch(flow=None, flow_valid=None, flow_exact=None)
    assert step_of(0, without, config())[0].losses.keys() == LEAD - {"flow", "doubt"}


def test_bends_have_no_pixels() -> None:
    bent = torch.tensor([True, True])
    assert step_of(400, batch(bent=bent), config())[0].losses["pixels"] == 0
    assert step_of(400, batch(bent=~bent), config())[0].losses["pixels"] > 0
    one = step_of(400, batch(), config())[0].losses["pixels"]
    spoilt = batch()
    spoilt.driving[1] = 1.0
    again = step_of(400, spoilt, config())[0].losses["pixels"]
    assert again.item() == pytest.approx(one.item())


def test_holding_still_costs_one() -> None:
    real, held = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(2)
    assert losses.picture(held, real, held, counts).item() == pytest.approx(1, abs=0.01)
    assert losses.picture(real, real, held, counts) == 0


def test_gradients_reach_every_parameter() -> None:
    result, model = step_of(400, batch(), config())
    torch.stack(list(result.losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    result, model = step_of(0, batch(), config())  # flow alone teaches the matcher alone
    torch.stack(list(result.losses.values())).sum().backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert all(p.grad is not None for p in model.matcher.parameters())


def match(error: float, log_error: float) -> Match:
    """A match that is off by some pixels of 256 along x where nothing moves."""
    field = torch.zeros(1, 2, 8, 8)
    field[:, 0] = error / 32
    return Match(field, field, field, torch.full((1, 1, 8, 8), log_error))


def endpoint(found: Match, valid: float = 1, weight: float = 1) -> tuple[float, float]:
    still = make_grid(16, 16, "half_pixel")[None]
    trusted = torch.full((1, 16, 16), valid).bool()
    error, doubt = losses.endpoint(found, still, trusted, torch.tensor([weight]))
    return error.item(), doubt.item()


def test_the_endpoint_error_is_in_pixels_of_256() -> None:
    right, _ = endpoint(match(0, 0))
    off, _ = endpoint(match(3, 0))
    assert right == pytest.approx(0.1 * sum(losses.LEVELS))
    assert off == pytest.approx(math.hypot(3, 0.1) * sum(losses.LEVELS))
    assert endpoint(match(3, 0), weight=2)[0] == pytest.approx(2 * off)
    assert endpoint(match(3, 0), weight=0)[0] == 0
    assert endpoint(match(3, 0), valid=0) == (0, 0)


def test_doubt_is_least_where_the_error_is_known() -> None:
    for error in (0.5, 3.0):
        known = math.log(math.hypot(error, 0.1))
        least = endpoint(match(error, known), weight=0)[1]  # whether motion learns or not
        assert least == pytest.approx(1 + known, abs=1e-4)
        assert all(endpoint(match(error, known + x))[1] > least + 0.05 for x in (-0.5, 0.5))


def test_each_loss_of_the_frame_reaches_its_own_network_alone() -> None:
    result, model = step_of(400, batch(), config())
    final, matcher = model.generator.final.bias, model.matcher.correct.out.weight
    reached = {}
    for name in sorted(PIXELS):
        gate, match = torch.autograd.grad(
            result.losses[name], (final, matcher), retain_graph=True, allow_unused=True
        )
        layers = [False] * 3 if gate is None else [bool(value) for value in gate != 0]
        reached[name] = layers, match is not None and bool(match.any())
    assert reached == {
        "motion": ([False, False, False], True),
        "structure": ([False, False, False], True),
        "pixels": ([True, True, False], False),  # gain and offset
        "sharpness": ([False, False, True], False),  # the gate
    }


def test_the_descriptors_length_is_held_and_nothing_else_is() -> None:
    """Only their direction counts: without this they grow until half precision cannot hold them."""
    random = torch.Generator().manual_seed(0)
    for size in (0.01, 300.0):
        descriptors = torch.nn.functional.normalize(
            torch.randn(2, 8, 4, 4, generator=random), dim=1
        )
        descriptors = (size * descriptors).requires_grad_()
        losses.length(descriptors).backward()
        assert descriptors.grad is not None
        along = (descriptors.grad * descriptors).sum(dim=1)
        across = descriptors.grad - along[:, None] * descriptors / size**2
        assert (along.sign() == (1 if size > 1 else -1)).all()
        assert across.abs().max() < 1e-4 * descriptors.grad.abs().max()
    assert losses.length(torch.zeros(1, 8, 4, 4)).isfinite()
