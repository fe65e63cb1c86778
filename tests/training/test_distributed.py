"""Several processes train as one: the same weights, one log, one end."""

from __future__ import annotations

import json
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
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.distributed import Processes

from .one_of_many import alone, of_each, start
from .small_runs import LITE

#: Biases whose gradient is 0 but for rounding, which Adam enlarges: a softmax or InstanceNorm takes
#: away what they add.
WITHOUT_EFFECT = ("heatmap.bias", "convs.1.bias", "convs.2.bias", "convs.3.bias")


def farthest(one: dict[str, Any], other: dict[str, Any], what: str) -> float:
    """The largest difference of gradients, or of weights that have an effect."""
    if what == "gradients":
        pairs = zip(one[what], other[what], strict=True)
        return max(float((a - b).abs().max()) for a, b in pairs if a is not None)
    return max(
        float((a[name].float() - b[name].float()).abs().max())
        for a, b in zip(one[what], other[what], strict=True)
        for name in a
        if not name.endswith(WITHOUT_EFFECT)
    )


def test_a_share_is_a_slice_of_one_size() -> None:
    assert [Processes(rank, 3).share(12, 2) for rank in range(3)] == [
        range(0, 4), range(4, 8), range(8, 12),
    ]  # fmt: skip
    for batch_size, accumulate in ((4, 1), (6, 4), (2, 1)):
        with pytest.raises(ConfigError, match=r"train\.batch_size"):
            Processes(0, 3).share(batch_size, accumulate)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(), RuntimeError("can't allocate memory")])
def test_memory_that_is_short_is_not_another_process_that_ended(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(tensors: Any) -> Any:
        raise error

    monkeypatch.setattr(torch, "cat", short)
    with pytest.raises(RuntimeError) as caught:
        Processes(0, 2).average([torch.zeros(1)])
    assert caught.value is error


def test_processes_share_the_cores_for_their_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for cores, here in ((1, 1), (16, 1), (16, 4), (2, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(here))
        found[cores, here] = Processes().loaders()
    assert found == {(1, 1): 1, (16, 1): 8, (16, 4): 3, (2, 4): 1}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes have after each of RUNS."""
    return of_each(2, tmp_path_factory.mktemp("both"))


@pytest.mark.slow
@pytest.mark.parametrize("run", ["ours-ptg", "lite"])
def test_two_processes_are_one_with_the_joined_batch(run: str, both: list[dict[str, Any]]) -> None:
    """The discriminator included, although one process has the labels, the other the real pair."""
    one, other = (each[run] for each in both)
    joined = alone(run)
    assert farthest(one, other, "weights") == farthest(one, other, "gradients") == 0
    largest = max(float(g.abs().max()) for g in joined["gradients"] if g is not None)
    assert farthest(one, joined, "gradients") < 2e-4 * largest  # kinks enlarge the rounding
    assert farthest(one, joined, "weights") < 2e-5  # after three steps of up to 2e-4 or 1e-3
    assert [(a + b) / 2 for a, b in zip(one["l1"], other["l1"], strict=True)] == pytest.approx(
        joined["l1"], rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("run", ["ours-pt", "lite"])
def test_two_processes_are_one_that_accumulates_to_the_last_bit(
    run: str, both: list[dict[str, Any]]
) -> None:
    one, parts = both[0][run], alone(run, "train.accumulate=2")
    assert farthest(one, parts, "weights") == farthest(one, parts, "gradients") == 0


@pytest.mark.slow
def test_each_batchnorm_sees_its_pairs_and_all_keep_the_same_statistics(
    both: list[dict[str, Any]],
) -> None:
    one, other = (each["batchnorm"] for each in both)
    assert one["l1"] != other["l1"]
    for a, b in zip(one["weights"], other["weights"], strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blob_frames: Callable[..., list[Any]]
) -> Callable[..., list[str]]:
    """The command line of a run on two clips: (name of its folder, settings...)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, width in (("a", 64), ("b", 80)):
        folder = tmp_path / "clips" / name
        folder.mkdir(parents=True)
        for i, frame in enumerate(blob_frames(6, width)):
            cv2.imwrite(str(folder / f"{i}.png"), frame)

    def make(run: str, *sets: str) -> list[str]:
        given = ["train", "lite", "--data", str(tmp_path / "clips"), "-o", str(tmp_path / run)]
        sets = (*LITE, "train.batch_size=4", *sets)
        return [*given, *(f"--set={value}" for value in sets)]

    return make


@pytest.mark.slow
def test_torchrun_and_then_one_process_are_one_run(
    words: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Batches, gradients, EMA and the log, which is written once."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "sonomime.cli"]
    command = [sys.executable, *torchrun, *words("many")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done at step 4") == 1
    torch.set_num_threads(1)
    assert main(words("one", "train.accumulate=2")) == 0
    found = [load_checkpoint(tmp_path / run / "checkpoint.pt") for run in ("many", "one")]
    for part in ("weights", "resume"):
        many, one = (getattr(each, part) for each in found)
        torch.testing.assert_close(many, one, rtol=0, atol=0)
    logs = []
    for run in ("many", "one"):
        lines = (tmp_path / run / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line) for line in lines])
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4]
    for many, one in zip(*logs, strict=True):
        del many["seconds_per_step"], many["waiting"]
        assert many == pytest.approx({name: one[name] for name in many}, rel=1e-4, abs=2e-6)
    # The same run goes on in one process.
    assert main([*words("many", "train.accumulate=2", "train.max_steps=5"), "--resume"]) == 0
    assert load_checkpoint(tmp_path / "many" / "checkpoint.pt").step == 5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_ends_one_ends_all_and_leaves_a_checkpoint(
    number: signal.Signals, words: Callable[..., list[str]], tmp_path: Path
) -> None:
    command = ["-m", "sonomime.cli", *words("run", "train.max_steps=1000000")]
    first, second = start(2, command)
    assert first.stderr is not None
    while "step 3/" not in (line := first.stderr.readline()):
        assert line, "the run ended"
    second.send_signal(number)
    _, said = first.communicate(timeout=120)
    second.communicate(timeout=120)
    if number == signal.SIGTERM:  # both stop at the same step, as if both had got it
        assert first.returncode == second.returncode == 143
    else:
        assert second.returncode == -signal.SIGKILL
        assert first.returncode == 4 and "hint: " in said and "another process" in said
    logged = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.step == json.loads(logged[-1])["step"] >= 3
