"""How a run ends and goes on: steps, minutes, signals, threads, folders."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sonomime.runtime.support.errors import OutputError
from sonomime.training import loop
from sonomime.training import trainer as trainer_module
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import train, without_denormals
from sonomime.training.trainer import Trainer

from .test_trainer import batch, config, make, silent


def test_the_time_limit_ends_with_a_checkpoint(tmp_path: Path) -> None:
    path = train(make(tmp_path, config()), False, 0.0, silent)
    assert load_checkpoint(path).step == 0


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
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(trainer_module, "time", clock)
    settings = config(
        train={"max_steps": 1000, "batchnorm_batches": batches, "picture_every": 10**6},
        loss={"adversarial": 0.0, "feature_matching": 0.0},
    )
    said: list[str] = []
    trainer = Trainer(settings, slow, tmp_path, ["bladder_neck"], [])
    path = train(trainer, False, 1.0, said.append)
    assert load_checkpoint(path).step == steps
    assert drawn == [*range(steps), *range(steps, steps + seen), steps]  # the last for the picture
    told = [int(found[1]) for line in said if (found := re.search(r"(\d+) min left", line))]
    assert len(told) == steps and set(told) <= {0, 1}  # not what 1000 steps would take


def test_a_run_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    settings = config(train={"max_steps": 1})
    train(make(tmp_path, settings), False, None, silent)
    with pytest.raises(OutputError, match="already holds a run") as error:
        train(make(tmp_path, settings), False, None, silent)
    assert "--resume" in error.value.hint


def test_a_stopped_run_is_safe_before_batchnorm_is_estimated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, config(train={"max_steps": 1000}))

    def report(line: str) -> None:
        if line.startswith("step 2/"):
            os.kill(os.getpid(), signal.SIGTERM)

    def killed(deadline: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "estimate_batchnorm", killed)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, False, None, report)
    resumed = make(tmp_path, config(train={"max_steps": 3}))
    said: list[str] = []
    train(resumed, True, None, said.append)
    assert said[0] == "resuming at step 2" and resumed.step == 3


def test_resuming_a_whole_run_leaves_its_checkpoint_alone(tmp_path: Path) -> None:
    settings = config(train={"max_steps": 1})
    path = train(make(tmp_path, settings), False, None, silent)
    before = path.stat().st_mtime_ns
    train(make(tmp_path, settings), True, None, silent)
    assert path.stat().st_mtime_ns == before


def test_resuming_where_there_is_no_run_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    train(make(tmp_path, config(train={"max_steps": 1})), True, None, said.append)
    assert "checkpoint.pt" in said[0]


def test_sigterm_ends_with_a_checkpoint(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_trainer import config, make
        from sonomime.training.loop import train
        train(make(Path({str(tmp_path)!r}), config(train={{"max_steps": 10**6}})), False, None,
              lambda line: print(line, flush=True))
    """)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("step 1/")
    os.kill(process.pid, signal.SIGTERM)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0
    assert "told to stop" in said
    assert load_checkpoint(tmp_path / "checkpoint.pt").step >= 1


def test_any_thread_may_train(tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with ThreadPoolExecutor(1) as pool:
        path = pool.submit(train, make(tmp_path, config()), False, None, silent).result()
    assert load_checkpoint(path).step == 4
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_a_kill_during_the_estimate_costs_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes minutes at the end of a run."""
    trainer = make(tmp_path, config(train={"max_steps": 2}))

    def killed(deadline: float) -> int:
        raise SystemExit

    monkeypatch.setattr(trainer, "estimate_batchnorm", killed)
    with pytest.raises(SystemExit):
        train(trainer, False, None, silent)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 2


def test_one_slow_step_does_not_end_a_run(tmp_path: Path) -> None:
    trainer = make(tmp_path, config(train={"max_steps": 2}))
    trainer.forward_seconds.extend([1.0, 1.0, 70.0])
    assert trainer.seconds_to_estimate() == trainer.batches_to_estimate() * 1.0 > 0


def test_numbers_next_to_zero_are_zero_in_training_alone() -> None:
    smallest = torch.tensor(1e-40)
    with without_denormals():
        assert smallest * 1.0 == 0
    assert smallest * 1.0 > 0
