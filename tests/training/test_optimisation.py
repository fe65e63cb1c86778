"""How long a run is, its rate, gradients of parts and in fp16."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from sonomime.runtime.support.errors import ConfigError
from sonomime.training.config import TrainConfig
from sonomime.training.config_file import load_config
from sonomime.training.distributed import ALONE
from sonomime.training.optimisation import NotFinite, learning_rate, update, with_steps

from .one_of_many import alone
from .small_runs import config, make
from .test_distributed import farthest


def test_steps_are_given_or_follow_from_the_epochs() -> None:
    paper = load_config("fomm", ["train.max_steps=0", "train.epochs=50", "train.num_repeats=75"])
    counted, rule = with_steps(paper, 134)
    assert counted.train.max_steps == 50 * 75 * 134 / 20 == 25_125
    assert "134 clips x 75 repeats x 50 epochs / 20 = 25125 steps" in rule
    odd = load_config("fomm", ["train.epochs=1", "train.num_repeats=1", "train.max_steps=0"])
    assert with_steps(odd, 21)[0].train.max_steps == 2  # the last batch is as large as all
    given = load_config("fomm", ["train.max_steps=9"])
    assert with_steps(given, 134)[0] == given
    with pytest.raises(ConfigError, match=r"train\.max_steps"):  # which of the two?
        load_config("lite", ["train.epochs=3"])
    assert load_config("lite", ["train.epochs=3", "train.max_steps=0"]).train.epochs == 3


def test_milestones_divide_the_rate_by_ten() -> None:
    train = TrainConfig(
        max_steps=100, schedule="milestones", milestones=(0.6, 0.9), learning_rate=1.0
    )
    rates = [learning_rate(train, step) for step in (0, 59, 60, 89, 90, 99)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for wrong in ("[0.9, 0.6]", "[0.5, 1.5]", "0.5"):
        with pytest.raises(ConfigError, match="milestones"):
            load_config("fomm", [f"train.milestones={wrong}"])


@pytest.mark.parametrize("run", ["ours-pt", "lite"])
def test_parts_have_the_gradient_of_the_whole_batch(run: str) -> None:
    """BatchNorm is frozen. One part has the labels, the other the real pair."""
    whole, parts = (alone(run, f"train.accumulate={n}") for n in (1, 2))
    largest = max(float(g.abs().max()) for g in whole["gradients"] if g is not None)
    assert 0 < farthest(parts, whole, "gradients") < 2e-5 * largest
    assert farthest(parts, whole, "weights") < 2e-5
    assert parts["l1"] == pytest.approx(whole["l1"], rel=1e-5)


def test_a_batch_that_cannot_be_cut_and_fp16_without_a_gpu_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.accumulate"):
        make(tmp_path, config("train.accumulate=3"))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="fp16"):
            make(tmp_path, config("train.precision=fp16"))


def test_fp16_skips_an_overflow_and_gives_up_where_the_scale_does_not_help() -> None:
    network = nn.Linear(2, 1)
    adam = torch.optim.Adam(network.parameters(), 0.1, fused=True)  # as the trainer's
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**15, growth_interval=1000)

    def step(value: float) -> list[float]:
        loss = network(torch.full((1, 2), value)).sum()
        update(adam, [{"loss": loss}], 1, [network], 10.0, scaler, ALONE, 7)
        return [float(weight) for weight in network.weight.detach().flatten()]

    begin = step(1.0)
    assert begin != step(1.0) and scaler.get_scale() == 2.0**15
    before = step(1.0)
    assert step(1e35) == before and scaler.get_scale() == 2.0**14  # 1e35 x 2^15 is no float
    assert step(1.0) != before
    scaler.update(0.5)
    network.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NotFinite, match="gradient of Linear"):
        step(1.0)


def test_gradients_are_clipped_by_their_largest_element_as_torch_does() -> None:
    network, unused = nn.Linear(3, 2), nn.Linear(3, 2)
    still, scaler = torch.optim.SGD(network.parameters(), 0.0), torch.amp.GradScaler(enabled=False)

    def gradient(limit: float) -> torch.Tensor:
        found = network(torch.tensor([[1.0, -50.0, 2.0]])) * torch.tensor([1.0, -2.0])
        update(still, [{"loss": found.sum()}], 1, [network, unused], limit, scaler, ALONE, 1)
        return network.weight.grad.clone()

    assert gradient(1e3).tolist() == [[1.0, -50.0, 2.0], [-2.0, 100.0, -4.0]]
    assert nn.utils.clip_grad_norm_(network.parameters(), 10.0, norm_type=math.inf) == 100
    torch.testing.assert_close(network.weight.grad, gradient(10.0))
