"""How a run ends and goes on: steps, minutes, signals, folders, threads; resuming is exact."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch

from sonomime.runtime.support.atomic_files import locked
from sonomime.runtime.support.errors import OutputError
from sonomime.runtime.support.process import Terminated
from sonomime.training import loop, pace, threads
from sonomime.training import trainer as trainer_module
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import stop_signals, train
from sonomime.training.threads import quicker_threads, step_seconds
from sonomime.training.trainer import Trainer

from .small_runs import SIZE, batch, config, logged, make, trained

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == before


#: Columns of the picture, and losses in the log.
PRESETS = {
    "ours-ptg": (
        7,
        "equivariance_value equivariance_jacobian supervision content reconstruction adversarial "
        "feature_matching discriminator",
    ),
    "lite": (9, "flow doubt folding roughness pixels"),
}


@pytest.mark.parametrize(
    ("preset", "precision"), [("ours-ptg", "fp32"), ("lite", "fp32"), ("lite", "bf16")]
)
def test_two_runs_of_two_steps_are_one_of_four(preset: str, precision: str, tmp_path: Path) -> None:
    def run(name: str, steps: int) -> Any:
        overrides = (f"train.precision={precision}", f"train.max_steps={steps}")
        trainer = make(tmp_path / name, config(*overrides, preset=preset))
        return trained(trainer, resume=True)

    whole, first, parts = run("whole", 4), run("parts", 2), run("parts", 4)
    assert whole.step == parts.step == 4
    for part in ("weights", "resume"):
        torch.testing.assert_close(getattr(parts, part), getattr(whole, part), rtol=0, atol=0)
    assert any(not torch.equal(first.weights[name], whole.weights[name]) for name in whole.weights)
    log = logged(tmp_path / "whole")
    assert log == logged(tmp_path / "parts") and [line["step"] for line in log] == [1, 2, 3, 4]
    columns, losses = PRESETS[preset]
    assert log[-1].keys() >= {"l1", "hold", "rate", *losses.split()}
    if preset == "lite":
        assert "pixels" not in log[0]  # it begins with the second step
        assert log[0]["l1"] == pytest.approx(log[0]["hold"], rel=0.3)  # at the source
    picture = cv2.imread(str(tmp_path / "whole" / "pictures" / "0000004.png"))
    assert picture.shape == (22 + 2 * SIZE, columns * SIZE, 3)
    assert picture[22:].std() > 5


@pytest.mark.parametrize(("batches", "steps", "seen"), [(4, 8, 4), (10, 6, 6), (0, 12, 0)])
def test_the_estimate_of_batchnorm_counts_into_the_limit(
    batches: int, steps: int, seen: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a minute, where a batch takes five seconds and nothing else takes time."""
    now, drawn = 0.0, []

    def slow(step: int) -> PairBatch:
        nonlocal now
        now += 5
        drawn.append(step)
        return batch(step)

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(loop, "estimate", lambda trainer: "")
    monkeypatch.setattr(trainer_module, "time", clock)
    settings = config("train.max_steps=1000", f"train.batchnorm_batches={batches}", preset="ours-p")
    said: list[str] = []
    trainer = Trainer(settings, slow, tmp_path, ["bladder_neck"], [])
    saved = load_checkpoint(train(trainer, False, 1.0, said.append))
    assert saved.step == steps
    assert all(torch.equal(saved.weights[k], v) for k, v in trainer.ema.state_dict().items())
    assert drawn == [*range(steps), *range(steps, steps + seen)]  # pictures show the first again
    told = [int(found[1]) for line in said if (found := re.search(r"(\d+) min left", line))]
    assert len(told) == steps and set(told) <= {0, 1}  # not what 1000 steps would take


def test_one_slow_step_does_not_end_a_run_and_no_time_still_leaves_a_checkpoint(
    tmp_path: Path,
) -> None:
    trainer = make(tmp_path, config())
    trainer.forward_seconds.extend([1.0, 1.0, 70.0])
    assert trainer.seconds_to_estimate() == trainer.batches_to_estimate() * 1.0 > 0
    assert load_checkpoint(train(trainer, False, 0.0, print)).step == 0


def test_a_run_is_overwritten_by_nothing_but_its_own_later_steps(tmp_path: Path) -> None:
    said: list[str] = []

    def run(resume: bool, steps: int = 1) -> Path:
        free = (f"train.max_steps={steps}", f"train.log_every={1 + len(said)}")
        trainer = make(tmp_path, config(*free, preset="lite"))
        try:
            return train(trainer, resume, None, said.append)
        finally:
            assert trainer.step in (steps, 0)

    with ThreadPoolExecutor(1) as pool:  # any thread may train
        path = pool.submit(run, resume=True).result()
    assert "checkpoint.pt" in said[0]  # there was none to resume
    before = path.stat().st_mtime_ns
    with pytest.raises(OutputError, match=r"checkpoint\.pt"):
        run(resume=False)
    assert run(resume=True).stat().st_mtime_ns == before
    said.clear()
    with locked(tmp_path), pytest.raises(OutputError):
        run(resume=True, steps=2)
    assert said == []  # what another run may write at any time is not even read


def test_the_lock_s_folder_goes_only_where_nothing_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with locked(run):
        monkeypatch.setattr(Path, "exists", lambda path: False)  # asked before the other made it
        with pytest.raises(OutputError), locked(run):
            raise AssertionError("two at once")
        monkeypatch.undo()
        assert run.is_dir()
    assert not run.exists()
    with locked(run):
        (run / "log.jsonl").touch()
    assert run.is_dir()


# -- signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_then_raises(number: signal.Signals, tmp_path: Path) -> None:
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("step 2/"):
            os.kill(os.getpid(), number)

    trainer = make(tmp_path, config("train.max_steps=1000", preset="lite"))
    with pytest.raises(KeyboardInterrupt) as caught:
        train(trainer, False, None, report)
    assert getattr(caught.value, "exit_code", 130) == 128 + number
    assert isinstance(caught.value, Terminated) == (number != signal.SIGINT)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 2
    assert "signal" in said[-1]


@pytest.mark.parametrize("stopped", [False, True])
def test_a_kill_during_the_estimate_costs_no_checkpoint(
    stopped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes minutes at the end of a run. A second Ctrl-C interrupts it."""
    trainer = make(tmp_path, config(f"train.max_steps={1000 if stopped else 2}"))

    def report(line: str) -> None:
        if stopped and line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    def killed(deadline: float) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        raise SystemExit

    monkeypatch.setattr(trainer, "estimate_batchnorm", killed)
    with pytest.raises(KeyboardInterrupt if stopped else SystemExit):
        train(trainer, False, None, report)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 2


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
        assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_numbers_next_to_zero_are_zero_in_training_alone(tmp_path: Path) -> None:
    smallest, found = torch.tensor(1e-40), []
    trainer = make(tmp_path, config("train.max_steps=1", preset="lite"))
    train(trainer, False, None, lambda line: found.append(bool(smallest * 1.0 > 0)))
    assert found == [False, False, True]  # before the step, after it, after the run


# -- threads ---------------------------------------------------------------------------------------


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("two", "chosen"), [(9.0, 1), (0.6, 2)])
def test_the_quicker_is_taken_unless_something_else_decides(
    two: float, chosen: int, tmp_path: Path, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "step_seconds", lambda trainer, every: {1: 1.0, every: two})
    long, short = (make(tmp_path, config(f"train.max_steps={n}", preset="lite")) for n in (100, 4))
    said: list[str] = []

    def used(trainer: Trainer) -> int:
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


def test_measuring_is_fair_and_short(
    tmp_path: Path, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, left = 0.0, {1: [9, 3, 2], 2: [5, 1, 4]}

    def step() -> None:
        nonlocal now
        now += left[torch.get_num_threads()].pop(0)

    trainer = make(tmp_path, config(preset="lite"))
    monkeypatch.setattr(threads, "Trainer", lambda *args: SimpleNamespace(train_step=step))
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now))
    assert step_seconds(trainer, 2) == {1: 2, 2: 1}  # the slow first steps do not count
    left.update({1: [2], 2: [22]})
    assert step_seconds(trainer, 2) == {1: 2, 2: 22}  # hopeless at once
    left.update({1: [2, 1], 2: [3, 22]})
    assert step_seconds(trainer, 2) == {1: 1, 2: 22}
    assert not any(left.values())


@pytest.mark.parametrize("parts", [1, 2])  # more than the pairs that are measured with
def test_measuring_changes_nothing(
    parts: int, tmp_path: Path, unset: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "ROUNDS", 1)
    monkeypatch.setattr(threads, "PAIRS", 1)
    settings = config(f"train.accumulate={parts}", preset="lite")
    plain, measured = (make(tmp_path, settings) for _ in range(2))
    found = step_seconds(measured, 2)
    assert found.keys() == {1, 2} and min(found.values()) > 0
    torch.set_num_threads(1)
    for trainer in (plain, measured):
        trainer.train_step()
    weights = (trainer.model.state_dict() for trainer in (plain, measured))
    torch.testing.assert_close(*weights, rtol=0, atol=0)
