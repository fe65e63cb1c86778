"""Untrained models none of whose numbers are trivial, as checkpoints, and their sizes for tests."""

from __future__ import annotations

from collections.abc import Sequence

from sonomime.benchmarks.lively import SMALL, Image, lively_model, speckle
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import load_config

__all__ = ["SMALL", "Image", "lively_checkpoint", "lively_model", "speckle"]


def lively_checkpoint(preset: str, overrides: Sequence[str] = (), seed: int = 0) -> Checkpoint:
    """A checkpoint of such a model."""
    config = load_config(preset, overrides)
    weights = lively_model(config, seed).state_dict()
    names = ["symphysis", "bladder neck"][: config.model.keypoints.supervised]
    return Checkpoint(config, 7, weights, names, [{"name": "speckle", "licence": "CC0"}])
