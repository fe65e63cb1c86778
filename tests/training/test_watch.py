"""Faults of a training are noticed in what it writes, once each; healthy runs give none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sonomime.training.models.geometry import make_grid
from sonomime.training.probe import look, measured
from sonomime.training.watch import LINES, Watch

from .small_runs import batch, config, make

SETTINGS = config("train.max_steps=1000", "loss.adversarial=2.0")
HEALTHY = {
    "displacement_mean": 4.3, "displacement_max": 25.0, "spread": 47.0, "closest": [5, 8, 16.0],
    "determinant": [4, 0.87], "occlusion": 0.4, "gate": 1.1,
}  # fmt: skip


def log(step: int, **values: float) -> dict[str, float]:
    """A line of a healthy run: it improves, and the discriminator is in balance, but moves."""
    share = 1.3 - step / 1000
    moving = 0.01 * (step % 3)
    healthy = {"l1": 0.05 * share, "hold": 0.05, "discriminator": 0.5 - moving}
    return {"step": step, "adversarial": 2 * (0.25 + moving), **healthy, **values}


def faults(
    lines: list[dict[str, Any]], looks: list[dict[str, Any]], settings: Any = SETTINGS
) -> list[str]:
    watch = Watch(settings)
    found = [each for line in lines for each in watch.logged(line)]
    found += [each for record in looks for each in watch.probed(record)]
    assert all(each.what and each.advice for each in found)
    return [each.name for each in found]


def test_a_healthy_run_gives_no_warning() -> None:
    lines = [log(step) for step in range(1, 1001, 7)]
    looks = [{"step": step, **HEALTHY} for step in range(0, 1001, 100)]
    assert faults(lines, looks) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("discriminator wins", {"discriminator": 0.01, "adversarial": 1.9}),
        ("discriminator learns nothing", {"discriminator": 0.5, "adversarial": 0.5}),
        ("discriminator runs away", {"discriminator": 3.0, "adversarial": 9.0}),
        ("hold", {"l1": 0.051}),
        ("growing", {"l1": 0.065}),
    ],
)
def test_a_fault_in_the_losses_is_said_once(name: str, values: dict[str, float]) -> None:
    good = [log(step, l1=0.03) for step in range(LINES)]
    late = 600 if name == "hold" else LINES
    bad = [log(late + i, **{"l1": 0.03, **values}) for i in range(3 * LINES)]
    assert faults(good + bad, []) == [name]
    assert faults(good + bad[: LINES // 4], []) == []  # a few batches are no fault


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("keypoints collapse", {"spread": 11.3, "closest": [0, 1, 0.5]}),
        ("keypoints coincide", {"closest": [3, 7, 1.0]}),
        ("singular jacobian", {"determinant": [2, 0.004]}),
        ("no motion", {"displacement_mean": 0.02, "displacement_max": 0.1}),
        ("occlusion closed", {"occlusion": 0.004}),
        ("occlusion open", {"occlusion": 0.997}),
        ("gate closed", {"gate": 0.2}),
    ],
)
def test_a_fault_of_the_probe_is_said_once(name: str, values: dict[str, Any]) -> None:
    looks = [{"step": step, **HEALTHY, **values} for step in range(0, 1001, 100)]
    assert faults([], looks) == [name]
    assert faults([], [looks[0], *looks[:2]]) == []  # every training begins like that
    mixed = [{**each, **HEALTHY} if i % 2 else each for i, each in enumerate(looks)]
    assert faults([], mixed) == []


def test_what_a_family_lacks_is_no_fault() -> None:
    record = {"displacement_mean": 3.0, "displacement_max": 20.0}
    assert faults([], [{"step": step, **record} for step in (500, 1000)]) == []


def test_lite_may_stand_still_until_pixels_count() -> None:
    settings = config(
        "train.max_steps=1000", "loss.flow_until=500", "loss.pixels_from=400", preset="lite"
    )
    lines = [{"step": step, "l1": 0.05, "hold": 0.05} for step in range(0, 1000, 10)]
    early = [line for line in lines if line["step"] < 900]
    assert faults(early, [], settings) == []
    assert faults(lines, [], settings) == ["hold"]


def test_a_detector_that_finds_all_points_on_one_spot_is_noticed(tmp_path: Path) -> None:
    """A heatmap of one value everywhere has its mean in the middle."""
    trainer = make(tmp_path, config())
    pairs = batch(0)
    detector = trainer.ema.keypoint_detector
    torch.nn.init.zeros_(detector.heatmap.weight)
    with torch.no_grad():
        jacobian = detector.jacobian.bias.view(-1, 4)
        jacobian[1] = torch.tensor([1.0, 1.0, 1.0, 1.001])
    records = [{"step": step, **trainer.look().record} for step in (500, 1000)]
    assert records[0]["spread"] < 1 and records[0]["closest"][2] < 1
    assert records[0]["determinant"] == [1, pytest.approx(0.001, abs=2e-4)]
    assert {"keypoints collapse", "singular jacobian"} <= {*faults([], records)}
    assert len(pairs.source) == len(records[0]["points"]["source"]) == 2


@torch.no_grad()
def test_lengths_and_places_are_measured_in_pixels(tmp_path: Path) -> None:
    trainer = make(tmp_path, config())
    shown = trainer.family.columns(trainer.ema, batch(0))
    grid = shown.images["deformation"]
    size, count = grid.shape[1], shown.watched["keypoints"].shape[1]
    places = torch.linspace(-0.5, 0.5, count)[:, None].expand(count, 2)
    still, aligned = (
        make_grid(size, size, geometry).expand(2, size, size, 2)
        for geometry in ("half_pixel", "fomm_aligned")
    )
    shown.images["deformation"] = still + torch.tensor([3 / 128, 4 / 128])
    shown.watched["keypoints"] = places.expand(4, count, 2)
    shown.points["source"] = torch.tensor([[[-1.0, 1.0], [-2.0, -2.0]]]).expand(2, 2, 2)
    found = measured(shown, "half_pixel")
    assert found["displacement_mean"] == found["displacement_max"] == pytest.approx(5, abs=1e-3)
    gap = 128 / (count - 1) * 2**0.5
    assert found["closest"][2] == pytest.approx(gap, abs=0.01)
    assert found["points"]["source"] == [[[-0.5, 63.5], None]] * 2
    assert look(shown, "half_pixel").picture.shape[2] == 3
    shown.images["deformation"] = aligned
    assert measured(shown, "fomm_aligned")["displacement_max"] == pytest.approx(0, abs=1e-3)
    assert measured(shown, "fomm_unaligned")["displacement_max"] > 1  # it samples elsewhere
