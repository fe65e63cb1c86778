"""What a run says of its speed, waiting, memory and end; TensorBoard, if it is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from sonomime.training import pace as pace_module
from sonomime.training import trainer as trainer_module
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import train
from sonomime.training.memory import estimate
from sonomime.training.pace import Lap, Pace
from sonomime.training.trainer import Trainer

from .small_runs import config, logged, make, unlabelled


def test_the_time_left_knows_every_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(monotonic=lambda: now))
    settings = config("train.max_steps=100", "train.checkpoint_every=40").train
    trainer: Any = SimpleNamespace(step=10, waited=3.0, config=SimpleNamespace(train=settings))
    trainer.seconds_to_estimate = lambda: 7.0
    pace = Pace(trainer, 1000.0)
    now, trainer.step, trainer.waited = 20.0, 20, 8.0
    lap = pace.lap()
    assert lap == Lap(2.0, 0.25) and "25%" in str(lap) and "%" not in str(Lap(2.0, 0.04))
    assert pace.left() == 80 * 2 + 3 * 7  # at steps 40, 80 and at the end
    trainer.step, now = 81, 900.0
    assert pace.left() == 19 * 2 + 7
    now = 980.0
    assert pace.left() == 20  # --max-minutes ends it before
    assert not pace.time_is_up()
    now = 993.5
    assert pace.time_is_up()


def test_waiting_for_data_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a batch takes five seconds and nothing else takes time."""
    now = 0.0

    def slow(step: int) -> PairBatch:
        nonlocal now
        now += 5
        return unlabelled(step)

    for module in (pace_module, trainer_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    said: list[str] = []
    sets = ("train.max_steps=6", "train.log_every=2")
    train(Trainer(config(*sets, preset="lite"), slow, tmp_path, [], []), False, None, said.append)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["seconds_per_step"], line["waiting"]) for line in lines] == [(5, 1)] * 4
    assert sum("for data" in line for line in said) == 4
    assert sum("pairs a second" in line for line in said) == 1
    assert sum(line.startswith("memory: ") for line in said) == 1


@pytest.mark.parametrize("preset", ["ours-ptg", "lite"])
def test_the_estimate_of_memory_counts_pairs_and_changes_nothing(
    preset: str, tmp_path: Path
) -> None:
    plain, measured = (make(tmp_path, config(preset=preset)) for _ in range(2))
    found = estimate(measured)
    weights = sum(p.numel() * 4 for p in measured.model.parameters())
    assert found.weights >= 5 * weights  # with gradient, two moments and EMA
    halves = estimate(make(tmp_path, config("train.accumulate=2", preset=preset)))
    assert halves.weights == found.weights
    assert 0.45 < halves.activations / found.activations < 0.75
    images = 2 * 64 * 64 * 4
    assert found.activations > 20 * images
    for trainer in (plain, measured):
        trainer.train_step()
    for one, other in zip(plain.parts.values(), measured.parts.values(), strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)


class Writer:
    """In the place of TensorBoard's."""

    made: list[Writer] = []  # noqa: RUF012 - of the test

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.closed = folder, purge_step, False
        self.scalars: dict[tuple[str, int], float] = {}
        self.images: dict[int, Any] = {}
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def add_image(self, name: str, image: Any, step: int, dataformats: str) -> None:
        assert dataformats == "HWC" and image.shape[2] == 3
        self.images[step] = image

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("there", ["yes", "no", "broken"])
def test_tensorboard_has_the_log_and_the_pictures_where_it_is_installed(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Writer.made.clear()
    module = ModuleType("torch.utils.tensorboard")
    if there == "yes":
        module.SummaryWriter = Writer  # type: ignore[attr-defined]
    name = "torch.utils.tensorboard"
    monkeypatch.setitem(sys.modules, name, None if there == "no" else module)
    said: list[str] = []
    train(make(tmp_path, config("train.max_steps=3")), False, None, said.append)
    about = [line for line in said if "TensorBoard" in line]
    assert len(about) == (there != "no") and bool(Writer.made) == (there == "yes")
    assert len(logged(tmp_path)) == 3
    if there == "yes":
        (writer,) = Writer.made
        assert str(tmp_path / "tensorboard") == writer.folder and writer.folder in about[0]
        assert writer.purge_step == 1 and writer.closed and list(writer.images) == [1, 3]
        for line in logged(tmp_path):
            assert writer.scalars["l1", line["step"]] == pytest.approx(line["l1"], abs=1e-5)
