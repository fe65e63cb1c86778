"""Outlines of source and driving picture: when they differ, that is said."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.runtime.outlines import overlap

SPECKLE = np.random.default_rng(5).integers(60, 200, (96, 96)).astype(np.uint8)


def sector(degrees: float) -> np.ndarray:
    """Speckle in a sector from the middle of the upper edge."""
    y, x = np.mgrid[:96, :96]
    inside = (np.hypot(x - 48, y) < 94) & (np.abs(np.degrees(np.arctan2(x - 48, y))) < degrees / 2)
    return np.where(inside, SPECKLE, 0).astype(np.uint8)


def test_overlap_is_of_outlines_and_not_of_what_is_in_them() -> None:
    assert overlap(SPECKLE, 255 - SPECKLE // 2) == 1
    assert overlap(sector(70), sector(70)) == 1
    assert overlap(sector(70), cv2.resize(sector(70), (480, 480))) > 0.95
    hollow = SPECKLE.copy()
    hollow[20:70, 20:70] = 0  # a cyst
    assert overlap(SPECKLE, hollow) == 1
    assert 0.7 < overlap(sector(70), sector(60)) < 1
    assert overlap(SPECKLE, sector(30)) < 0.45
    assert overlap(SPECKLE, np.zeros((96, 96), np.uint8)) == 0
    coloured = np.stack([SPECKLE] * 3, -1)
    assert overlap(coloured, SPECKLE) == 1


@pytest.mark.parametrize(("driving", "warns"), [(SPECKLE, True), (sector(35), False)])
def test_animate_warns_where_outlines_differ(
    tmp_path: Path, displacement_toy: Path, caplog: pytest.LogCaptureFixture, driving: np.ndarray,
    warns: bool,
) -> None:  # fmt: skip
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.roll(driving, number, 1))
    cv2.imwrite(str(tmp_path / "still.png"), sector(30))
    words = ["animate", str(tmp_path / "still.png"), str(folder), "-o", str(tmp_path / "out.mkv")]
    with caplog.at_level(logging.WARNING):
        assert main([*words, "--bundle", str(displacement_toy), "--backend", "cpu"]) == 0
    assert any("outline" in record.message for record in caplog.records) is warns
