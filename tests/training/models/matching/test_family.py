"""The family as the rest of the house asks for it, and the pictures of a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lively import SMALL_LITE, lively_model

from sonomime.training.config import load_config, preset_names
from sonomime.training.data.batch import PairBatch
from sonomime.training.logbook import picture_grid
from sonomime.training.models.families import family_of
from sonomime.training.models.keypoints.family import KeypointFamily
from sonomime.training.models.matching.family import MatchingFamily

COLUMNS = [
    "source", "driving", "deformation", "displacement", "confidence", "shading", "folding", "gate",
    "prediction",
]  # fmt: skip


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_has_the_family_that_it_names(preset: str) -> None:
    config = load_config(preset)
    wanted = MatchingFamily if config.model.family == "matching" else KeypointFamily
    assert type(family_of(config.model)) is wanted


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_grid_shows_what_was_found(channels: int) -> None:
    model = lively_model(load_config("lite", (*SMALL_LITE, f"model.channels={channels}")))
    images = torch.rand(2, 2, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    none, unseen = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool)
    real = torch.zeros(2, dtype=torch.bool)
    pairs = PairBatch(*images, none, none, unseen, unseen, None, None, None, real, unseen, unseen)
    with torch.no_grad():
        shown = family_of(model.config).columns(model, pairs)
    assert list(shown.images) == COLUMNS and shown.points == {}
    for name in set(COLUMNS) - {"deformation", "prediction", "gate"}:
        assert 0 <= shown.images[name].min() <= shown.images[name].max() <= 1, name
    grid = picture_grid({k: v.numpy() for k, v in shown.images.items()}, {})
    assert grid.shape == (22 + 2 * 128, 9 * 128, 3) and grid.dtype == np.uint8
    cells = np.split(grid[22:], 9, axis=1)
    flat = [name for name, cell in zip(COLUMNS, cells, strict=True) if cell.std() < 0.5]
    assert set(flat) <= {"folding"}
