"""Models small enough to train in a test, and batches that are a pure function of the step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import Config
from sonomime.training.config_file import load_config
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import train
from sonomime.training.trainer import Trainer

SIZE = 64
TRAIN = (
    f"model.image_size={SIZE}",
    "train.max_steps=4",
    "train.batch_size=2",
    "train.precision=fp32",
    "train.batchnorm_batches=2",
    "train.log_every=1",
    "train.warmup=0",
    "train.schedule=constant",
)
_HOURGLASS = "width=4, max_features=8, depth=2, head_kernel=3"
KEYPOINTS = (
    *TRAIN,
    f"model.keypoints={{self_supervised=3, supervised=1, {_HOURGLASS}}}",
    f"model.motion={{{_HOURGLASS}}}",
    "model.generator.width=4",
    "model.generator.blocks=1",
    "model.discriminator.width=4",
    "loss.reconstruction=1.0",
    "loss.feature_matching=1.0",
)
LITE = (
    *TRAIN,
    "model.matcher={fine=8, coarse=8, grid=8, stiff=4, shading=4}",
    "model.corrector={width=4, blocks=1}",
    "model.landmarks.width=8",
    "loss.pixels_from=1",
    "loss.flow_until=3",
)


def config(*overrides: str, preset: str = "ours-ptg") -> Config:
    """The smallest model of a preset."""
    return load_config(preset, (*(LITE if preset == "lite" else KEYPOINTS), *overrides))


def batch(step: int, labels: int = 1) -> PairBatch:
    """Two pairs; one is a bend. The second frames have no label."""
    random = torch.Generator().manual_seed(step)
    images = [torch.rand(2, 1, SIZE, SIZE, generator=random) for _ in range(2)]
    points = [torch.rand(2, labels, 2, generator=random) - 0.5 for _ in range(2)]
    seen = torch.tensor([[True], [False]]).expand(2, labels)
    flow = torch.rand(2, SIZE // 4, SIZE // 4, 2, generator=random) * 2 - 1
    valid = torch.rand(2, SIZE // 4, SIZE // 4, generator=random) < 0.7
    bent = torch.tensor([True, False])
    return PairBatch(*images, *points, seen, seen, flow, valid, bent, bent, ~seen, ~seen)


def pairs_of(
    source: torch.Tensor, driving: torch.Tensor, labels: int = 0, seen: bool = False
) -> PairBatch:
    """Pairs of real frames without flow, whose labels are seen or not."""
    points = torch.zeros(len(source), labels, 2)
    visible = torch.full((len(source), labels), seen)
    real = torch.zeros(len(source), dtype=torch.bool)
    none = [None] * 3
    absent = visible & False
    return PairBatch(source, driving, points, points, visible, visible, *none, real, absent, absent)


def unlabelled(step: int) -> PairBatch:
    """Such pairs without a label."""
    return batch(step, labels=0)


def make(run: Path, settings: Config) -> Trainer:
    """A trainer of that model, on noise."""
    torch.set_num_threads(1)
    if settings.model.family == "matching" or settings.model.keypoints.supervised == 0:
        return Trainer(settings, unlabelled, run, [], [{"name": "noise"}])
    return Trainer(settings, batch, run, ["bladder_neck"], [{"name": "noise"}])


def trained(trainer: Trainer, resume: bool = False, start: Path | None = None) -> Checkpoint:
    """What a whole run of the trainer saves."""
    return load_checkpoint(train(trainer, resume, None, print, start))


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Files cannot grow above this size, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def logged(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without how quick it was."""
    lines = (run / "log.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds_per_step": 0, "waiting": 0} for line in lines]
