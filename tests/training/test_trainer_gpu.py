"""Training steps on a GPU are those of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lively import small_config

from sonomime.training.data.batch import PairBatch
from sonomime.training.models.families import family_of
from sonomime.training.trainer import Trainer


@pytest.mark.gpu
@pytest.mark.parametrize("preset", ["lite", "ours-ptg"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_steps_on_a_gpu(
    preset: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    config = small_config(preset, f"train.precision={precision}", "train.batch_size=2")
    labels = [f"label {i}" for i in range(family_of(config.model).labels(config.model))]
    source, driving = torch.rand(2, 2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    points, seen = torch.zeros(2, len(labels), 2), torch.ones(2, len(labels), dtype=torch.bool)
    real = torch.zeros(2, dtype=torch.bool)
    batch = PairBatch(
        source, driving, points, points, seen, seen, None, None, None, real, ~seen, ~seen
    )

    def first_loss() -> float:
        trainer = Trainer(config, lambda step: batch, tmp_path, labels, [])
        losses = [sum(trainer.train_step().losses.values()).item() for _ in range(3)]
        assert trainer.step == 3 and losses == pytest.approx(losses)  # no nan
        return losses[0]

    on_gpu = first_loss()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_gpu == pytest.approx(first_loss(), rel=0.02 if precision == "fp32" else 0.2)
