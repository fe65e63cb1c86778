"""Untrained models none of whose numbers are trivial, as checkpoints, and their sizes for tests."""

from __future__ import annotations

from collections.abc import Sequence

from sonomime.benchmarks.lively import SMALL, Image, lively_model, speckle
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import load_config
from sonomime.training.models.families import family_of

__all__ = ["SMALL", "SMALL_MATCHING", "Image", "lively_checkpoint", "lively_model", "speckle"]

SMALL_MATCHING = (
    "model.image_size=128",
    "model.matcher.fine=8",
    "model.matcher.coarse=8",
    "model.matcher.grid=16",
    "model.matcher.stiff=8",
    "model.matcher.shading=8",
    "model.corrector.width=8",
)


def lively_checkpoint(preset: str, overrides: Sequence[str] = (), seed: int = 0) -> Checkpoint:
    """A checkpoint of such a model."""
    config = load_config(preset, overrides)
    weights = lively_model(config, seed).state_dict()
    names = ["symphysis", "bladder neck"][: family_of(config.model).labels(config.model)]
    return Checkpoint(config, 7, weights, names, [{"name": "speckle", "licence": "CC0"}])
