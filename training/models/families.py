"""Which family a configuration asks for: the one place that asks."""

from __future__ import annotations

from ..config import ModelConfig
from .base import Family
from .keypoints.family import KeypointFamily
from .matching.family import MatchingFamily


def family_of(config: ModelConfig) -> Family:
    """The family that builds, trains and exports the models of a configuration."""
    return MatchingFamily() if config.family == "matching" else KeypointFamily()
