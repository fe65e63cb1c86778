"""A cache of the tests' own, and a phantom folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from .fakes import write_phantom


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to read; copy it before changing it."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")
