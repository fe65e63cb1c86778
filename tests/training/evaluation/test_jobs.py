"""An evaluation by several processes says what one process says, to the last bit."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import pytest
import torch

from sonomime.runtime.support.errors import BackendError, ConfigError, SonomimeError
from sonomime.runtime.support.plain_file import sha256_file
from sonomime.runtime.support.spread import Lost
from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import open_candidate
from sonomime.training.evaluation.measuring import Worker
from sonomime.training.evaluation.networks.squeezenet import SqueezeNet

from ...lively import SMALL, lively_checkpoint
from ...toy_bundle import make_toy_bundle
from .reports import evaluate


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("task", ["reconstruction", "prediction", "transfer", "tracking"])
def test_jobs_change_nothing(phantom: Path, tmp_path: Path, task: str) -> None:
    torch.manual_seed(0)
    torch.save(SqueezeNet().state_dict(), weights := tmp_path / "squeezenet.pth")
    network = ["--network", f"squeezenet={weights}@{sha256_file(weights)}"]
    candidate = make_toy_bundle(tmp_path / "toy", 64)
    if task == "prediction":
        candidate = tmp_path / "checkpoint.pt"
        lively_checkpoint("ours-p", SMALL).save(candidate)
    words = [candidate, "--data", phantom, "--split", "all", "--task", task, "--max-frames", 3]
    words += [] if task == "tracking" else network
    report, alone = tmp_path / "report", tmp_path / "alone"
    evaluate(report, *words, "--threads", 1)
    report.rename(alone)
    evaluate(report, *words, "--threads", 1, "--jobs", 2)
    assert files(report) == files(alone) and "results.json" in files(alone)


def test_a_worker_with_another_model_or_library_is_refused(toy_bundle: Path) -> None:
    with open_candidate(toy_bundle, "cpu", 1) as candidate:
        facts = dict(candidate.facts)
    how = {"task": "tracking", "alignment": "none", "max_frames": None}

    def worker(**other: str) -> Worker:
        threads = torch.get_num_threads(), cv2.getNumThreads()  # which it sets
        return Worker(os.getcwd(), toy_bundle, facts | other, "cpu", *threads, [], how)

    worker()
    for name in ("manifest_sha256", "numpy"):
        with pytest.raises(BackendError, match=f"another {name}: {facts[name]}, and not 0"):
            worker(**{name: "0"})


@pytest.mark.usefixtures("trained_on")
def test_what_workers_cannot_do_is_an_error_that_names_the_clip(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["copy", "--data", phantom, "--split", "all"]
    monkeypatch.setattr(run, "spread_over", lambda crew, workers, items: [(1, Lost("killed"))])
    with pytest.raises(SonomimeError, match=r"s1\.mkv.*killed") as caught:
        evaluate(tmp_path / "r", *words, "--jobs", 2)
    assert "--jobs" in caught.value.hint
    assert not (tmp_path / "r" / "results.json").exists()


@pytest.mark.parametrize(("address", "kind"), [("x", ConfigError), ("127.0.0.1:1", BackendError)])
def test_a_wrong_address_is_said_before_anything_is_read(
    tmp_path: Path, address: str, kind: type[SonomimeError]
) -> None:
    with pytest.raises(kind, match=address):
        evaluate(tmp_path / "r", "none", "--data", tmp_path / "none", "--ray", address)
    assert list(tmp_path.iterdir()) == []
