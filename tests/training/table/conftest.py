"""A table with faked cells."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sonomime.training.table import cells
from sonomime.training.table.make import Done, make_table
from sonomime.training.table.plan import read_plan

from .fakes import PLAN, Fakes


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    fakes = Fakes()
    monkeypatch.setattr(cells, "run", fakes.evaluate)
    return fakes


@pytest.fixture
def table(tmp_path: Path, fakes: Fakes) -> Callable[..., Done]:
    """Make the table, with options; its plan is table.toml."""
    file = tmp_path / "table.toml"
    file.write_text(PLAN)
    for folder in ("clips", "test", "other"):
        (tmp_path / folder).mkdir()

    def make(*rows: str, seeds: Sequence[int] = (), minutes: float | None = None) -> Done:
        fakes.said.clear()
        asked = {"row": list(rows), "seed": list(seeds), "max_minutes": minutes}
        args = argparse.Namespace(plan=file, output=tmp_path / "out", **asked)
        return make_table(read_plan(file), args, fakes.register_train, fakes.said.append)

    return make
