"""One of several processes that train together, started as torchrun starts it:
`python one_of_many.py FOLDER` writes FOLDER/RANK.pt, what it has after each of RUNS."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lively import lively_model

from sonomime.training.config import Config
from sonomime.training.data.batch import PairBatch
from sonomime.training.distributed import ALONE, Processes, joined
from sonomime.training.models.matching import objective
from sonomime.training.trainer import Trainer

if __name__ == "__main__":
    from small_runs import batch, config, unlabelled
else:
    from .small_runs import batch, config, unlabelled

_FROZEN = "train.batchnorm=frozen"
#: Preset, steps and settings, by name. All in the same processes: to start one takes longest.
RUNS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    # With logit the lively generator's pictures are a quarter as lively: rounding is enlarged.
    "ours-ptg": ("ours-ptg", 3, (_FROZEN, "model.generator.fusion=pixel")),
    "lite": ("lite", 3, (_FROZEN,)),
    # Spectral norm is refined at every use, so a discriminator sees how many parts there are.
    "ours-pt": ("ours-pt", 3, (_FROZEN, "loss.feature_matching=0")),
    "batchnorm": ("ours-pt", 2, ()),
}


def state(settings: Config, steps: int, processes: Processes = ALONE) -> dict[str, Any]:
    """Gradients of the last step, weights and figures, after training on this process's share."""
    torch.set_num_threads(1)
    length, objective.LENGTH = objective.LENGTH, 0.0  # the square of the logarithm of a mean
    labels = ["bladder_neck"] if settings.model.family == "keypoints" else []
    draw = batch if labels else unlabelled
    share = processes.share(settings.train.batch_size)

    def mine(step: int) -> PairBatch:
        return draw(step).parts(processes.count)[processes.rank] if len(share) < 2 else draw(step)

    trainer = Trainer(settings, mine, Path(), labels, [], processes)
    # Of an untrained generator's flat pictures the discriminator sees the rounding, enlarged.
    for model in (trainer.model, trainer.ema):
        model.load_state_dict(lively_model(settings, seed=3).state_dict())
    l1 = [trainer.train_step().l1 for _ in range(steps)]
    objective.LENGTH = length
    networks = [trainer.model, *([trainer.discriminator] if trainer.discriminator else [])]
    gradients = [p.grad for network in networks for p in network.parameters()]
    weights = [trainer.ema.state_dict(), *(network.state_dict() for network in networks)]
    return {"gradients": gradients, "weights": weights, "l1": l1}


def of_each(count: int, folder: Path) -> list[dict[str, Any]]:
    """What so many processes have after each of RUNS."""
    for process in start(count, [__file__, str(folder)]):
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def alone(run: str, *overrides: str) -> dict[str, Any]:
    """What this process alone has after one of RUNS, with other settings."""
    preset, steps, sets = RUNS[run]
    return state(config(*sets, *overrides, preset=preset), steps)


def start(count: int, words: Sequence[str]) -> list[subprocess.Popen[str]]:
    """Python processes with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


if __name__ == "__main__":
    with joined() as processes:
        found = {
            name: state(config(*sets, preset=preset), steps, processes)
            for name, (preset, steps, sets) in RUNS.items()
        }
        torch.save(found, Path(sys.argv[1]) / f"{processes.rank}.pt")
