"""The probe's geometry and the limits of what can be typed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sonomime.training.phantom.display import Display
from sonomime.training.phantom.limits import beyond
from sonomime.training.phantom.probe import SIZE, Probe, pixel_grid

CURVED = Probe(
    frequency=4.5, radius=50, angle=75, depth=85, zoom=0.6, focus=45, axial=0.55, lateral=1.2
)
PHASED = replace(CURVED, radius=4, angle=85, depth=140, zoom=0.0)
DISPLAY = Display(
    dynamic_range=55, white=26, gamma=1.3, noise=58, gain=0.28, persistence=(0.75, 0.25, 0.0),
    frame_rate=25,
)  # fmt: skip


@pytest.mark.parametrize("probe", [CURVED, PHASED])
def test_millimetres_pixels_and_polar_coordinates_convert_there_and_back(probe: Probe) -> None:
    pixels = pixel_grid()
    mm = probe.to_mm(pixels)
    np.testing.assert_allclose(probe.to_pixels(mm), pixels, atol=1e-9)
    seen = mm[probe.inside(mm)]
    np.testing.assert_allclose(probe.from_polar(*probe.to_polar(seen)), seen, atol=1e-9)
    # Straight below the middle of the face depth is z, and x grows with the angle to the right.
    depth, angle = probe.to_polar(np.array([[0.0, 30.0], [5.0, 30.0]]))
    assert depth[0] == pytest.approx(30) and angle[0] == 0 and angle[1] > 0


def test_the_sector_fills_the_picture_as_zoom_says() -> None:
    whole = replace(CURVED, zoom=0.0).sector()
    assert not whole[:, [0, -1]].any() and not whole[[0, -1]].any()
    columns = np.flatnonzero(whole.any(axis=0))
    assert columns[0] + columns[-1] == SIZE - 1 and columns[0] <= 3
    cropped = replace(CURVED, zoom=1.0)
    rows = np.flatnonzero(cropped.sector().any(axis=1))
    assert rows[0] <= 3 and rows[-1] >= SIZE - 4
    assert cropped.sector()[:, 0].any(), "the sides are cut off"


def test_a_margin_keeps_points_off_every_border() -> None:
    mm = CURVED.to_mm(pixel_grid())
    inner = CURVED.inside(mm, 4.0)
    depth, angle = CURVED.to_polar(mm[inner])
    assert depth.min() >= 4 and depth.max() <= CURVED.depth - 4
    sideways = (CURVED.half_angle - np.abs(angle)) * (depth + CURVED.radius)
    assert sideways.min() >= 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"depth": -5.0}, "probe.depth is -5: it must be from 10 to 300"),
        ({"radius": 0.0}, "probe.radius"),
        ({"angle": 180.0}, "probe.angle"),
        ({"axial": 0.0}, "probe.axial"),
        ({"lateral": 0.0}, "probe.lateral"),
        ({"frequency": float("nan")}, "probe.frequency is nan"),
        ({"zoom": 1.5}, "probe.zoom"),
    ],
)
def test_an_impossible_probe_is_named(change: dict[str, float], said: str) -> None:
    assert CURVED.impossible() is None and PHASED.impossible() is None
    assert said in (replace(CURVED, **change).impossible() or "")


def test_an_impossible_display_is_named() -> None:
    assert DISPLAY.impossible() is None
    wrong = replace(DISPLAY, persistence=(0.5, 0.2, 0.1))
    assert wrong.impossible() == "display.persistence sums to 0.8: it must sum to 1"
    negative = replace(DISPLAY, persistence=(1.5, -0.5, 0.0))
    assert "display.persistence is 1.5" in (negative.impossible() or "")
    assert "display.dynamic_range" in (replace(DISPLAY, dynamic_range=0.0).impossible() or "")


def test_limits_reach_into_parts_and_tuples() -> None:
    assert beyond(DISPLAY, {"persistence": (0, 1), "gain": (0, 1)}) is None
    assert beyond(DISPLAY, {"persistence": (0, 0.5)}) == (
        "persistence is 0.75: it must be from 0 to 0.5"
    )
