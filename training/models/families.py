"""Which family a configuration asks for: the one place that asks."""

from __future__ import annotations

from ..config import ModelConfig
from .base import Family
from .keypoints.family import KeypointFamily
from .matching.family import MatchingFamily
from .monkey_net.family import MonkeyNetFamily


def family_of(config: ModelConfig) -> Family:
    """The family that builds, trains and exports the models of a configuration."""
    if config.family == "matching":
        return MatchingFamily()
    if config.family == "monkey-net":
        return MonkeyNetFamily(config)
    return KeypointFamily()
