"""One thread or all: the quicker is taken, nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sonomime.training import loop
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.loop import quicker_threads, step_seconds, train

from .small_runs import config, make, silent


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("two", "chosen"), [(9.0, 1), (0.6, 2)])
def test_the_quicker_is_taken_unless_something_else_decides(
    two: float, chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "step_seconds", lambda trainer, every: {1: 1.0, every: two})
    long, short = (make(tmp_path, config(f"train.max_steps={n}", preset="lite")) for n in (100, 4))
    said: list[str] = []

    def used(trainer: loop.Trainer) -> int:
        with quicker_threads(trainer, said.append):
            return torch.get_num_threads()

    assert used(long) == 1  # torch has one thread
    torch.set_num_threads(2)
    assert used(short) == 2
    assert said == []
    assert used(long) == chosen
    assert torch.get_num_threads() == 2
    assert len(said) == 1 and f"threads: {chosen}." in said[0]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert used(long) == 2 and len(said) == 1


@pytest.mark.parametrize(
    ("one", "two", "found"),
    [
        ([9, 3, 2], [5, 1, 4], {1: 2, 2: 1}),  # the slow first steps do not count
        ([2], [22], {1: 2, 2: 22}),  # hopeless at once
        ([2, 1], [3, 22], {1: 1, 2: 22}),
    ],
)
def test_measuring_is_fair_and_short(
    one: list[int], two: list[int], found: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def step() -> None:
        nonlocal now
        now += (one if torch.get_num_threads() == 1 else two).pop(0)

    trainer = make(tmp_path, config(preset="lite"))
    monkeypatch.setattr(loop, "Trainer", lambda *args: SimpleNamespace(train_step=step))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now))
    assert step_seconds(trainer, 2) == pytest.approx(found)
    assert one == two == []


def test_a_run_is_the_same_whether_measured_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, looked = config("train.max_steps=3", preset="lite"), []
    plain = train(make(tmp_path / "plain", settings), False, None, silent)

    def slow_with_two(trainer: loop.Trainer, every: int) -> dict[int, float]:
        looked.append(step_seconds(trainer, every))
        return {1: 1.0, every: 2.0}

    monkeypatch.setattr(loop, "ROUNDS", 1)
    monkeypatch.setattr(loop, "step_seconds", slow_with_two)
    trainer = make(tmp_path / "measured", settings)
    torch.set_num_threads(2)
    other = train(trainer, False, None, silent)
    assert looked[0].keys() == {1, 2} and min(looked[0].values()) > 0
    one, two = load_checkpoint(plain).weights, load_checkpoint(other).weights
    assert all(torch.equal(one[name], two[name]) for name in one)
