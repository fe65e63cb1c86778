"""The picture of latencies."""

from __future__ import annotations

import numpy as np
import pytest

from sonomime.benchmarks.plot import SIZE, draw, latencies, ticks


def test_a_picture_with_a_line_for_each() -> None:
    lines = {"a": [20.0, 21.0, 40.0], "b": [30.0], "none": list[float](), "x" * 200: [25.0] * 9}
    drawn = draw(lines, "title")
    assert drawn.shape == (SIZE[1], SIZE[0], 3) and drawn.dtype == np.uint8
    assert not np.array_equal(drawn, draw({"a": lines["a"]}, "title"))
    slower = draw({"a": [40.0, 42.0, 80.0]}, "title")
    assert not np.array_equal(slower, draw({"a": lines["a"]}, "title"))


def test_lines_of_a_report() -> None:
    loop = {"rate_hz": 25.0, "dropped": 1, "due": 3, "samples_ms": [1.0, 2.0]}
    report = {
        "scenarios": [loop, {"scenario": "offline"}],
        "streams": {"scenarios": [loop | {"streams": [loop, loop]}]},
    }
    one, several = latencies(report).values()
    assert one == [1, 2] and several == [1, 2, 1, 2]
    compared = {"candidates": [{"name": "cpu", "samples_ms": [[1.0], [2.0]]}]}
    assert latencies(compared) == {"cpu": [1, 2]}


@pytest.mark.parametrize(("low", "high"), [(20, 23), (19.9, 20.1), (5, 50), (0.1, 10_000)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found == sorted(found) and all(low <= each <= high for each in found)
    assert len(found) >= 1 and len(found) < 20
