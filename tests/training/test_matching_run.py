"""A run of the matching family: resumed it is the same, and its pictures are made."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lively import SMALL_LITE

from sonomime.runtime.animator import Animator
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.config import load_config
from sonomime.training.data.batch import PairBatch
from sonomime.training.loop import train
from sonomime.training.torch_backend import open_session
from sonomime.training.trainer import Trainer

SIZE = 128
QUICK = (
    *SMALL_LITE,
    "train.batch_size=2",
    "train.warmup=0",
    "train.schedule=constant",
    "train.log_every=1",
    "loss.pixels_from=1",
    "loss.flow_until=3",
)


def batch(step: int) -> PairBatch:
    """Two pairs, a pure function of the step; one is a bend."""
    random = torch.Generator().manual_seed(step)
    images = torch.rand(2, 2, 1, SIZE, SIZE, generator=random)
    none, unseen = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool)
    flow = torch.rand(2, SIZE // 4, SIZE // 4, 2, generator=random) * 2 - 1
    valid = torch.rand(2, SIZE // 4, SIZE // 4, generator=random) < 0.7
    bent = torch.tensor([True, False])
    return PairBatch(*images, none, none, unseen, unseen, flow, valid, bent, bent, unseen, unseen)


def run(folder: Path, steps: int, resume: bool = False, *more: str) -> Path:
    torch.set_num_threads(1)
    config = load_config("lite", (*QUICK, f"train.max_steps={steps}", *more))
    trainer = Trainer(config, batch, folder, ["a label"], [{"name": "noise"}])
    return train(trainer, resume, None, lambda line: None)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_of_two_steps_are_one_of_four(tmp_path: Path, precision: str) -> None:
    more = f"train.precision={precision}"
    whole = load_checkpoint(run(tmp_path / "whole", 4, False, more))
    run(tmp_path / "parts", 2, False, more)
    parts = load_checkpoint(run(tmp_path / "parts", 4, True, more))
    assert whole.step == parts.step == 4
    for one, other in (
        (whole.weights, parts.weights),
        (whole.resume["model"], parts.resume["model"]),
    ):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    start = load_checkpoint(run(tmp_path / "short", 1, False, more)).weights
    assert any(not torch.equal(start[name], whole.weights[name]) for name in start)


def test_log_and_pictures(tmp_path: Path) -> None:
    run(tmp_path, 3)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    lead = {"flow", "doubt", "folding", "roughness", "l1", "hold"}
    assert [line.keys() >= lead for line in lines] == [True] * 3
    assert ["pixels" in line for line in lines] == [False, False, True]
    assert lines[0]["l1"] == pytest.approx(lines[0]["hold"], rel=0.3)  # it begins at the source
    picture = cv2.imread(str(tmp_path / "pictures" / "0000003.png"))
    assert picture.shape == (22 + 2 * SIZE, 9 * SIZE, 3)
    assert picture[22:].std() > 5


def test_a_checkpoint_animates(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(run(tmp_path, 1))
    random = np.random.default_rng(0)
    source, driving = (random.integers(0, 255, (48, 70), dtype=np.uint8) for _ in range(2))
    animator = Animator(open_session(checkpoint))
    animator.set_source(source)
    frame = animator.animate(driving)
    assert frame.shape == (SIZE, SIZE) and frame.dtype == np.uint8
    assert animator.read("displacement").shape == (1, 16, 16, 2)


def test_resuming_with_another_grid_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 1)
    with pytest.raises(ConfigError, match=r"model\.matcher\.grid"):
        run(tmp_path, 2, True, "model.matcher.grid=8")
