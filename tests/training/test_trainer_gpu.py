"""Training steps on a GPU are those of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lively import small_config

from sonomime.training.models.families import family_of
from sonomime.training.trainer import Trainer

from .small_runs import pairs_of


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
    images = torch.rand(2, 2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    batch = pairs_of(*images, labels=len(labels), seen=True)

    def first_loss() -> float:
        trainer = Trainer(config, lambda step: batch, tmp_path, labels, [])
        losses = [sum(trainer.train_step().losses.values()).item() for _ in range(3)]
        assert trainer.step == 3 and losses == pytest.approx(losses)  # no nan
        return losses[0]

    on_gpu = first_loss()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert on_gpu == pytest.approx(first_loss(), rel=0.02 if precision == "fp32" else 0.2)
