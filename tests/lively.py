"""Untrained models none of whose numbers are trivial, as checkpoints, and their sizes for tests."""

from __future__ import annotations

from collections.abc import Sequence

from sonomime.benchmarks.lively import SMALL as SMALL_BY_FAMILY
from sonomime.benchmarks.lively import Image, lively_model, small_config, speckle
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import load_config
from sonomime.training.models.families import family_of

__all__ = [
    "SMALL", "SMALL_LITE", "Image", "lively_checkpoint", "lively_model", "small_config", "speckle",
]  # fmt: skip

SMALL, SMALL_LITE = SMALL_BY_FAMILY["keypoints"], SMALL_BY_FAMILY["matching"]


def lively_checkpoint(preset: str, overrides: Sequence[str] = (), seed: int = 0) -> Checkpoint:
    """A checkpoint of such a model."""
    config = load_config(preset, overrides)
    weights = lively_model(config, seed).state_dict()
    names = ["symphysis", "bladder neck"][: family_of(config.model).labels(config.model)]
    return Checkpoint(config, 7, weights, names, [{"name": "speckle", "licence": "CC0"}])
