"""What the rewrites gain is measured on the model's own forward and on the bundle's stage."""

from __future__ import annotations

import pytest
from lively import SMALL

from sonomime.benchmarks.rewrites import measure
from sonomime.training.config import load_config


@pytest.mark.parametrize("stage", ["motion", "generator"])
def test_rows(stage: str) -> None:
    rows = measure(load_config("lite", SMALL).model, 1, 1, [stage])
    assert [row["stage"] for row in rows] == [stage]
    assert all(value > 0 for key, value in rows[0].items() if key != "stage")
