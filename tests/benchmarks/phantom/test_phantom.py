"""The phantom's page: statistics of clips, and what the command writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.benchmarks.phantom import __main__ as command
from sonomime.benchmarks.phantom.clips import Report, texture
from sonomime.benchmarks.phantom.physics import Check


def grain(seed: int, across: float, along: float, contrast: float = 30) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((256, 256)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), across, None, along)
    return np.uint8(np.clip(64 + contrast * noise / noise.std(), 0, 255))


def test_texture_tells_width_contrast_and_change() -> None:
    fine, long, other = grain(0, 0.6, 0.6), grain(0, 1.8, 0.6), grain(1, 1.8, 0.6)
    still, boiling = texture([np.stack([long, long])]), texture([np.stack([long, other])])
    assert still.neighbours == pytest.approx(1) and abs(boiling.neighbours) < 0.1
    assert still.across > 1.5 * still.along
    round_ = texture([fine[None]])
    assert round_.across == pytest.approx(round_.along, rel=0.1)
    assert math.isnan(round_.neighbours), "a still has no neighbour"
    faint = texture([grain(0, 0.6, 0.6, 10)[None]])
    assert round_.deviation[1] > 2 * faint.deviation[1]


def test_the_command_keeps_what_somebody_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulate(report: Report, *_: object) -> None:
        report.checks += [Check("sound", 1.0, 0.5, 2.0), Check("broken", 3.0, 0.5, 2.0)]
        report.checks += [Check("free", 3.0, -math.inf, math.inf)]
        report.add("phantom pelvic", [grain(0, 1, 1)[None]])

    monkeypatch.setattr(command, "simulate", simulate)
    monkeypatch.setattr("sys.argv", ["phantom", "-o", str(tmp_path)])
    page = tmp_path / "phantom.md"
    page.write_text("# By hand\n\n<!-- measured -->\n\nold\n")
    command.main()
    text = page.read_text()
    assert text.startswith("# By hand\n\n<!-- measured -->\n") and "old" not in text
    assert "| sound | 1.000 | 0.5 to 2 | pass |" in text
    assert "| broken | 3.000 | 0.5 to 2 | **FAIL** |" in text
    assert "| free | 3.000 | none |  |" in text
    assert "no real clips were given" in text and "real lung" not in text
    facts = json.loads((tmp_path / "phantom.json").read_text())
    assert [check["name"] for check in facts["checks"]] == ["sound", "broken", "free"]
    assert facts["checks"][2]["low"] is None
    assert cv2.imread(str(tmp_path / "phantom-greys.jpg")) is not None
