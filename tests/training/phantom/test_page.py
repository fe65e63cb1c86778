"""The phantom's page: statistics of clips, and what is kept of a page that exists."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.training.phantom.page import __main__ as page
from sonomime.training.phantom.page.__main__ import texture
from sonomime.training.phantom.render import Shot
from sonomime.training.phantom.subject import draw_subject

ALONG, ACROSS = "width of a speckle along the beam", "width across the beam"
NEIGHBOURS = "high-pass correlation of neighbouring frames"
LEVEL = "high-pass deviation at mean grey 0.2 to 0.3"


def grain(seed: int, across: float, along: float, contrast: float = 30) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((256, 256)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), across, None, along)
    return np.uint8(np.clip(64 + contrast * noise / noise.std(), 0, 255))


def test_texture_tells_width_contrast_and_change() -> None:
    fine, long, other = grain(0, 0.6, 0.6), grain(0, 1.8, 0.6), grain(1, 1.8, 0.6)
    still, boiling = texture([np.stack([long, long])]), texture([np.stack([long, other])])
    assert still[NEIGHBOURS] == pytest.approx(1) and abs(boiling[NEIGHBOURS]) < 0.1
    assert still[ACROSS] > 1.5 * still[ALONG]
    alone = texture([fine[None]])
    assert alone[ACROSS] == pytest.approx(alone[ALONG], rel=0.1)
    assert math.isnan(alone[NEIGHBOURS]), "a still has no neighbour"
    assert alone[LEVEL] > 2 * texture([grain(0, 0.6, 0.6, 10)[None]])[LEVEL]


def test_the_page_is_drawn_and_keeps_what_was_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, found = tmp_path / "phantom.md", texture([grain(0, 1, 1)[None]])
    file.write_text("# By hand\n\n<!-- measured -->\n\nold\n")
    page.write_page(tmp_path, {"phantom pelvic": [found], "real lung": [found, found]})
    text = file.read_text()
    assert text.startswith("# By hand\n\n<!-- measured -->\n") and "old" not in text
    assert "| clips | 1 | 2 |" in text and f"| {NEIGHBOURS} | - | - |" in text
    facts = json.loads((tmp_path / "phantom.json").read_text())
    assert facts["textures"]["phantom pelvic"][0][NEIGHBOURS] is None

    shot = Shot(grain(0, 1, 1), np.full((256, 256, 2), 5, np.float32))
    monkeypatch.setattr(page, "film", lambda *clip: [shot] * len(clip[-1]))
    pelvic, heart = (draw_subject(name, 2026, 1) for name in ("pelvic", "heart"))
    page.pictures(tmp_path, [pelvic] * 4, [heart], {"a": grain(0, 1, 1)})
    for name in ("rest", "real", "valsalva", "hearts"):
        assert cv2.imread(str(tmp_path / f"phantom-{name}.jpg")).shape[0] > 200
