"""Every preset learns: made small, it overfits one pair of frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lively import small_config, speckle

from sonomime.training.data.batch import PairBatch
from sonomime.training.models.families import family_of
from sonomime.training.trainer import Trainer

pytestmark = pytest.mark.slow

SIZE, STEPS = 128, 60
QUICK = ("train.precision=fp32", "train.learning_rate=2e-3", "train.warmup=0")
# Stands in for the perceptual loss, whose network is not ours to ship.
KEYPOINTS = ("model.discriminator.width=8", "loss.reconstruction=10")
# Its schedule ends here: at the full rate the last steps still leap.
LITE = ("loss.pixels_from=0", f"train.max_steps={STEPS}")
#: How much of the first step's L1 to the driving frame may be left; three seeds left at most .04,
#: .04, .09, .13 and .19 of it. lite begins at the source, the others at noise.
LEFT = {"fomm": 0.08, "ours-p": 0.08, "ours-pt": 0.2, "ours-ptg": 0.2, "lite": 0.3}


def one_pair(labels: int) -> PairBatch:
    """Speckle, and the same pushed by up to seven pixels; its labels are not seen."""
    source = cv2.GaussianBlur(speckle(SIZE), (0, 0), 1)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    push = np.exp(-((rows - 64) ** 2 + (columns - 64) ** 2) / 2000)
    driving = cv2.remap(source, columns + 6 * push, rows - 4 * push, cv2.INTER_LINEAR)
    images = [torch.tensor(image[None, None] / np.float32(255)) for image in (source, driving)]
    points, seen = torch.zeros(1, labels, 2), torch.zeros(1, labels, dtype=torch.bool)
    real = torch.tensor([False])
    return PairBatch(*images, points, points, seen, seen, None, None, None, real, seen, seen)


@pytest.mark.parametrize("preset", LEFT)
def test_a_preset_overfits_one_pair(preset: str, tmp_path: Path) -> None:
    config = small_config(preset, *QUICK, *(LITE if preset == "lite" else KEYPOINTS))
    pair = one_pair(family_of(config.model).labels(config.model))
    trainer = Trainer(config, lambda step: pair, tmp_path, [], [])
    steps = [trainer.train_step() for _ in range(STEPS)]
    left = np.mean([step.l1 for step in steps[-10:]])
    assert left < LEFT[preset] * steps[0].l1
    if preset in ("fomm", "ours-p", "lite"):  # two decoders need longer
        assert left < steps[0].hold
