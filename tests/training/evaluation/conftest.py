"""A cache of the tests' own, a phantom folder, and small models that can be evaluated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sonomime.training.checkpoint import Checkpoint
from sonomime.training.config import config_from_dict
from sonomime.training.models.keypoints.model import AnimationModel

from ...toy_bundle import make_toy_bundle
from .phantoms import write_phantom

SIZE = 64


@pytest.fixture(autouse=True)
def own_cache_and_one_thread(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    # On a busy machine two threads wait for each other far longer than these tiny models take.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to read; copy it before changing it."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundle") / "toy", SIZE)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {"width": 4, "max_features": 8, "depth": 2, "head_kernel": 3}
    model = {
        "image_size": SIZE,
        "keypoints": {**small, "self_supervised": 3},
        "motion": small,
        "generator": {"width": 4, "blocks": 1},
    }
    config = config_from_dict({"preset": "tiny", "model": model})
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    Checkpoint(config, 3, AnimationModel(config.model).state_dict()).save(path)
    return path
