"""What ends a run unasked: a kill, numbers that are not finite, no memory, another preset."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from sonomime.cli import main
from sonomime.runtime.support.errors import BackendError, ConfigError, OutputError
from sonomime.training import loop
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.data.batch import PairBatch
from sonomime.training.logbook import Logbook
from sonomime.training.loop import train
from sonomime.training.optimisation import NotFinite
from sonomime.training.starting import start_from
from sonomime.training.trainer import Trainer

from .small_runs import KEYPOINTS, LITE, batch, config, logged, make, trained, unlabelled

KILLED = -signal.SIGKILL
#: Runs the command line, and kills it in the middle of the writing of the second checkpoint or
#: right after a line of the log.
KILLER = """
import os, signal, sys
import torch
from sonomime.cli import main
from sonomime.training.logbook import Logbook

where, *words = sys.argv[1:]
save, write, saves = torch.save, Logbook.write, []

def half(payload, stream):
    saves.append(1)
    if where == "saving" and len(saves) == 2:
        stream.write(b"PK half a checkpoint")
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(payload, stream)

def logged(book, step, values):
    write(book, step, values)
    if where == "training" and step == 5:
        with (book.run / "log.jsonl").open("a") as file:
            file.write('{"step": 6, "l1"')
        os.kill(os.getpid(), signal.SIGKILL)

torch.save, Logbook.write = half, logged
sys.exit(main(words))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "where", "held"),
    [("lite", "saving", 2), ("lite", "training", 4), ("ours-ptg", "saving", 2)],
)
def test_a_killed_run_goes_on_to_the_last_bit(
    preset: str,
    where: str,
    held: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blob_frames: Callable[..., list[Any]],
) -> None:
    folder = tmp_path / "clips" / "blob"
    folder.mkdir(parents=True)
    for i, frame in enumerate(blob_frames(6)):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    settings = (*(LITE if preset == "lite" else KEYPOINTS), "train.max_steps=7")
    sets = [f"--set={value}" for value in (*settings, "train.checkpoint_every=2")]
    if preset != "lite":  # a checkpoint is then written once each time
        sets.append("--set=train.batchnorm_batches=0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.set_num_threads(1)

    def words(run: str) -> list[str]:
        return ["train", preset, "--data", str(folder.parent), "-o", str(tmp_path / run), *sets]

    assert main(words("whole")) == 0
    killer = [sys.executable, "-c", KILLER, where, *words("killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run(killer, env=environment, check=False, timeout=300).returncode == KILLED
    assert load_checkpoint(tmp_path / "killed" / "checkpoint.pt").step == held
    left = list((tmp_path / "killed").glob(".checkpoint.*.part.pt"))
    assert len(left) == (where == "saving")
    assert main([*words("killed"), "--resume"]) == 0
    whole, killed = (load_checkpoint(tmp_path / n / "checkpoint.pt") for n in ("whole", "killed"))
    assert whole.step == killed.step == 7
    for part in ("weights", "resume"):
        torch.testing.assert_close(getattr(killed, part), getattr(whole, part), rtol=0, atol=0)
    log = logged(tmp_path / "whole")
    assert log == logged(tmp_path / "killed") and [line["step"] for line in log] == [*range(1, 8)]
    names = [sorted(p.name for p in (tmp_path / n).rglob("*")) for n in ("whole", "killed")]
    assert names[0] == names[1]


# -- numbers that are not finite -------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["ours-ptg", "lite"])
def test_what_is_not_finite_keeps_the_last_checkpoint(preset: str, tmp_path: Path) -> None:
    def broken(step: int) -> PairBatch:
        whole = (batch if preset == "ours-ptg" else unlabelled)(step)
        return whole._replace(driving=whole.driving * float("nan")) if step == 3 else whole

    settings = config("train.checkpoint_every=2", "train.batchnorm_batches=0", preset=preset)
    labels = ["bladder_neck"] if preset == "ours-ptg" else []
    with pytest.raises(NotFinite) as error:
        trained(Trainer(settings, broken, tmp_path, labels, []))
    checkpoint = load_checkpoint(tmp_path / "checkpoint.pt")
    assert checkpoint.step == 2 and error.value.exit_code == 3
    said = error.value.message
    assert "at step 3" in said and "holds step 2" in said and str(tmp_path) in said
    assert "--from" in error.value.hint
    assert ("'equivariance_value'" if preset == "ours-ptg" else "'flow'") in said


@pytest.mark.parametrize("preset", ["ours-ptg", "lite"])
def test_a_rate_that_is_too_high_is_named_as_the_cure(preset: str, tmp_path: Path) -> None:
    """Its pictures are not finite either, and are no reason for another error."""
    with pytest.raises(NotFinite) as error:
        trained(make(tmp_path, config("train.learning_rate=1e30", preset=preset)))
    assert "train.learning_rate" in error.value.hint
    assert "--from" not in error.value.hint and not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("part", ["ema", "optimizer", "model"])
def test_nothing_that_is_not_finite_is_saved(part: str, tmp_path: Path) -> None:
    trainer = make(tmp_path, config(preset="lite"))
    trainer.train_step()
    path = tmp_path / "checkpoint.pt"
    trainer.save(path)
    before = path.read_bytes()
    if part == "optimizer":
        trainer.optimizer.state[next(trainer.model.parameters())]["exp_avg"].fill_(float("inf"))
    else:
        next(getattr(trainer, part).parameters()).data.fill_(float("nan"))
    with pytest.raises(NotFinite):
        trainer.save(path)
    assert path.read_bytes() == before and len(os.listdir(tmp_path)) == 1


# -- memory ----------------------------------------------------------------------------------------


CPU = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError(), CPU]
)
def test_without_memory_what_was_learned_is_saved(error: Exception, tmp_path: Path) -> None:
    trainer = make(tmp_path, config("train.accumulate=2"))
    whole = trainer.objective.forward

    def short(*given: Any) -> Any:
        if trainer.step == 3:
            raise error
        return whole(*given)

    trainer.objective.forward = short  # type: ignore[method-assign]
    with pytest.raises(BackendError) as caught:
        train(trainer, False, None, print)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 3
    assert caught.value.exit_code == 4 and "at step 3" in caught.value.message
    assert "--size" in caught.value.hint  # a pair at a time cannot be cut
    assert "train.accumulate" not in caught.value.hint
    # More parts need less, and may be asked for now.
    again = make(tmp_path, config("train.accumulate=1"))
    assert trained(again, resume=True).step == 4


def test_a_real_allocation_that_is_too_large_is_known(tmp_path: Path) -> None:
    trainer = make(tmp_path, config(preset="lite"))
    trainer.objective.forward = lambda *given: torch.empty(1 << 60)  # type: ignore[method-assign]
    with pytest.raises(BackendError) as caught:
        train(trainer, False, None, print)
    for setting in ("train.batch_size", "train.accumulate", "--size", "--width"):
        assert setting in caught.value.hint
    assert not (tmp_path / "checkpoint.pt").exists()


CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize("error", [CPU, CUBLAS, torch.OutOfMemoryError(), MemoryError()])
def test_memory_that_is_short_before_the_first_step_is_no_defect(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*given: Any, **named: Any) -> Any:
        raise error

    monkeypatch.setattr("sonomime.training.data.dataset.find_clips", short)
    assert main(["train", "lite", "--data", str(tmp_path), "-o", str(tmp_path / "run")]) == 4


@pytest.mark.parametrize("error", [OutputError("full"), KeyError("a defect")])
def test_whatever_else_ends_a_run_its_weights_are_saved(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(book: Logbook, step: int, values: Any) -> None:
        if step == 3:
            raise error

    monkeypatch.setattr(Logbook, "write", fail)
    with pytest.raises(type(error)) as caught:
        train(make(tmp_path, config(preset="lite")), False, None, print)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 3
    assert not isinstance(error, OutputError) or "holds step 3" in str(caught.value)


def test_a_report_that_cannot_be_written_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir(parents=True)
    said: list[str] = []
    trainer = make(tmp_path, config("train.checkpoint_every=2", preset="lite"))
    train(trainer, False, None, said.append)
    assert load_checkpoint(tmp_path / "checkpoint.pt").step == 4
    assert any("report.html" in line for line in said)


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(trainer: Trainer) -> str:
        raise RuntimeError("a defect")

    monkeypatch.setattr(loop, "estimate", wrong)
    with pytest.raises(RuntimeError, match="a defect"):
        train(make(tmp_path, config(preset="lite")), False, None, print)


# -- another preset --------------------------------------------------------------------------------


def test_a_checkpoint_of_another_preset_is_named(tmp_path: Path) -> None:
    lite = trained(make(tmp_path, config("train.max_steps=1", preset="lite")))
    for preset in ("ours-ptg", "ours-p"):
        other = make(tmp_path, config(preset=preset))
        with pytest.raises(ConfigError) as error:
            train(other, True, None, print)
        assert "'lite'" in error.value.message and f"'{preset}'" in error.value.message
        with pytest.raises(ConfigError) as error:
            start_from(other, lite)
        assert "'lite'" in error.value.message and f"'{preset}'" in error.value.message
        assert "'lite'" in error.value.hint
    assert json.loads((tmp_path / "log.jsonl").read_text())["step"] == 1
