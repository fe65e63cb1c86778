"""A cache of the tests' own, and a phantom folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.training.evaluation import run
from sonomime.training.evaluation.candidate import Candidate

from .fakes import Fake, candidate_of, copy, write_phantom


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to read; copy it before changing it."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom")


@pytest.fixture
def trained_on(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """`copy` opens as a model that copies the driving frame, `hold` as one that holds the source.

    They were trained on what this list is given.
    """
    record: list[dict[str, Any]] = []

    @contextmanager
    def opened(path: Path, threads: int | None = None) -> Iterator[Candidate]:
        yield replace(candidate_of(Fake(copy) if path.name == "copy" else Fake()), data=record)

    monkeypatch.setattr(run, "open_candidate", opened)
    return record
