"""Which losses count when, what they reach, and what they learn."""

from __future__ import annotations

import math

import pytest
import torch
from lively import SMALL_LITE, noise

from sonomime.training.config import Config, load_config
from sonomime.training.data.batch import PairBatch
from sonomime.training.models.geometry import make_grid
from sonomime.training.models.matching import objective as losses
from sonomime.training.models.matching.matcher import Match
from sonomime.training.models.matching.model import MatchingModel
from sonomime.training.models.matching.objective import MatchingObjective

from ...small_runs import pairs_of

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


def test_holding_still_costs_one() -> None:
    real, held = noise(2, 2, 1, 16, 16)
    counts = torch.ones(2)
    assert losses.picture(held, real, held, counts).item() == pytest.approx(1, abs=0.01)
    assert losses.picture(real, real, held, counts) == 0


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
