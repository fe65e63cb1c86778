"""One thread or all: the quicker is taken, nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sonomime.training import threads
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.loop import train
from sonomime.training.threads import quicker_threads, step_seconds

from .test_trainer import config, make, silent


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def measured(monkeypatch: pytest.MonkeyPatch, one: float, two: float) -> list[int]:
    """Measuring answers this; the list gets the number of threads that each asked for."""
    asked: list[int] = []

    def answer(trainer: object, every: int) -> dict[int, float]:
        asked.append(every)
        return {1: one, every: two}

    monkeypatch.setattr(threads, "step_seconds", answer)
    return asked


@pytest.mark.parametrize(("one", "two", "chosen"), [(1.0, 9.0, 1), (1.0, 0.6, 2)])
def test_the_quicker_is_taken_and_put_back(
    one: float, two: float, chosen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measured(monkeypatch, one, two)
    trainer = make(tmp_path, config(train={"max_steps": 100}))
    torch.set_num_threads(2)
    said: list[str] = []
    with quicker_threads(trainer, said.append):
        assert torch.get_num_threads() == chosen
    assert torch.get_num_threads() == 2
    assert asked == [2] and len(said) == 1
    assert f"threads: {chosen}." in said[0] and f"{one:.2f} s" in said[0]


def test_what_the_user_or_the_run_decides_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measured(monkeypatch, 1.0, 9.0)
    long, short = (make(tmp_path, config(train={"max_steps": n})) for n in (100, 4))
    with quicker_threads(long, silent):  # torch has one thread
        assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    with quicker_threads(short, silent):
        assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with quicker_threads(long, silent):
        assert torch.get_num_threads() == 2
    assert asked == []


class Twin:
    """A trainer whose steps take what is written here, by a clock of its own."""

    seconds: dict[int, list[float]]
    now = 0.0

    def __init__(self, *args: object) -> None:
        self.count = {1: 0, 2: 0}

    def train_step(self) -> None:
        threads = torch.get_num_threads()
        type(self).now += self.seconds[threads][self.count[threads]]
        self.count[threads] += 1


@pytest.mark.parametrize(
    ("seconds", "found"),
    [
        ({1: [9, 3, 2], 2: [5, 1, 4]}, {1: 2, 2: 1}),  # the slow first steps count nothing
        ({1: [2], 2: [22]}, {1: 2, 2: 22}),  # hopeless at once
        ({1: [2, 1], 2: [3, 22]}, {1: 1, 2: 22}),
    ],
)
def test_measuring_is_fair_and_short(
    seconds: dict[int, list[float]],
    found: dict[int, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = make(tmp_path, config())
    monkeypatch.setattr(Twin, "seconds", seconds, raising=False)
    monkeypatch.setattr(threads, "Trainer", Twin)
    clock = SimpleNamespace(perf_counter=lambda: Twin.now)
    monkeypatch.setattr(threads, "time", clock)
    assert step_seconds(trainer, 2) == pytest.approx(found)


def test_a_run_is_the_same_whether_measured_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = config(train={"max_steps": 7})
    plain = train(make(tmp_path / "plain", steps), False, None, silent)
    looked = []
    real = step_seconds

    def slow_with_two(trainer: object, every: int) -> dict[int, float]:
        looked.append(real(trainer, every))  # type: ignore[arg-type]
        return {1: 1.0, every: 2.0}

    monkeypatch.setattr(threads, "step_seconds", slow_with_two)
    trainer = make(tmp_path / "measured", steps)
    torch.set_num_threads(2)
    other = train(trainer, False, None, silent)
    assert looked[0].keys() == {1, 2} and min(looked[0].values()) > 0
    one, two = load_checkpoint(plain).weights, load_checkpoint(other).weights
    assert all(torch.equal(one[name], two[name]) for name in one)
