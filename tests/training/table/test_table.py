"""A table goes on where it stopped, never mixes plans, and sums up what its cells found."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from lively import SMALL_LITE, lively_checkpoint

from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.evaluation.loop import Frame
from sonomime.training.evaluation.strips import Sketch
from sonomime.training.table import cells, page
from sonomime.training.table.make import Done, make_table
from sonomime.training.table.plan import read_plan

PLAN = """
rows = [{name = "fomm"}, {name = "lite"}]
seeds = [0, 1]
size = 128
data = ["clips"]
set = ["train.max_steps=40"]
[[evaluations]]
name = "real"
task = "reconstruction"
data = ["test"]
"""
#: By row and seed, what each clip's L1 is; three subjects, the last with two clips.
L1 = {("fomm", 0): [4, 2, 6, 8], ("fomm", 1): [6, 2, 6, 8], ("lite", 0): [2, 1, 3, 4]}
SUBJECTS = ["a", "b", "c", "c"]
LITE = lively_checkpoint("lite", SMALL_LITE)


def record(row: str, seed: int, steps: int, data: str) -> dict[str, Any]:
    values = L1.get((row, seed), L1["lite", 0])
    clips = [
        {"subject": subject, "methods": {"model": {"l1": value, "ssim": None}}}
        for subject, value in zip(SUBJECTS, values, strict=True)
    ]
    value = {"value": 10.0 * values[0], "low": 1.0 + seed, "high": None}
    return {
        "candidate": {"step": str(steps)},
        "settings": {"task": "reconstruction", "data": data},
        "clips": clips,
        "distances": [{"measure": "fd_squeeze", "methods": {"model": value}}],
    }


class Fakes:
    """Stand for training and evaluation, which take no time; ``done`` says what was asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def register_train(self, sub: Any) -> None:
        parser = sub.add_parser("train")
        parser.add_argument("config")
        for option in ("--size", "--set", "--data", "-o", "--max-minutes"):
            parser.add_argument(option, action="append")
        parser.add_argument("--resume", action="store_true")
        parser.set_defaults(run=self.train)

    def train(self, args: argparse.Namespace) -> None:
        """Stops at half if there is a limit."""
        folder = Path(args.o[0])
        folder.mkdir(parents=True, exist_ok=True)
        row, seed = folder.parts[-3:-1]
        self.done.append(f"train {row} {seed}{' again' if args.resume else ''}")
        steps = 20 if args.max_minutes else 40
        Checkpoint(LITE.config, steps, LITE.weights).save(folder / "checkpoint.pt")

    def evaluate(self, args: argparse.Namespace, keep: Callable[[str, Sketch], None]) -> None:
        row, seed = args.output.parts[-3:-1]
        self.done.append(f"evaluate {row} {seed}")
        picture = np.full((128, 128), 40 if row == "fomm" else 200, np.uint8)
        frames = [Frame(i, picture // 2, picture // 4) for i in range(3)]
        for frame in frames:
            frame.prediction = picture
        keep("clip", Sketch(picture // 8, frames))
        args.output.mkdir(parents=True, exist_ok=True)
        made = record(row, int(seed[4:]), 40, str(args.data[0]))
        (args.output / "results.json").write_text(json.dumps(made))


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

    def make(*rows: str, seeds: Sequence[int] = (), minutes: float | None = None) -> Done:
        asked = {"row": list(rows), "seed": list(seeds), "max_minutes": minutes}
        args = argparse.Namespace(plan=file, output=tmp_path / "out", **asked)
        return make_table(read_plan(file), args, fakes.register_train, lambda line: None)

    return make


def test_cells_are_completed_one_by_one_and_once(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    assert table("lite", minutes=1).missing == [
        f"{row} (seed {seed})" for seed in (0, 1) for row in ("fomm", "lite")
    ]
    assert fakes.done == ["train lite seed0", "train lite seed1"]
    assert not (tmp_path / "out" / "table.md").exists()
    fakes.done.clear()
    assert table(seeds=[0]).missing == ["fomm (seed 1)", "lite (seed 1)"]
    assert fakes.done == [
        "train fomm seed0", "evaluate fomm seed0", "train lite seed0 again", "evaluate lite seed0",
    ]  # fmt: skip
    fakes.done.clear()
    # Its evaluations are there: a cell needs its checkpoint no more.
    (tmp_path / "out/rows/fomm/seed0/run/checkpoint.pt").unlink()
    assert table(seeds=[0]).missing == ["fomm (seed 1)", "lite (seed 1)"] and not fakes.done
    # Killed between results and samples: only that is done again.
    (tmp_path / "out/rows/lite/seed0/real.npz").unlink()
    assert table().missing == []
    assert fakes.done[0] == "evaluate lite seed0" and len(fakes.done) == 5


def test_the_table_has_means_intervals_ratios_and_pictures(
    table: Callable[..., Done], tmp_path: Path
) -> None:
    (section,) = table().sections
    known = [column.key for column in section.columns]
    assert known == ["l1", "fd_squeeze"], "others are defined nowhere"
    distance = section.figures["lite"]["fd_squeeze"]
    assert (distance.value["mean"], distance.value["low"], distance.seeds) == (20, 1.5, [20, 20])
    assert distance.ratio is not None and distance.ratio["mean"] == pytest.approx(20 / 50)
    fomm, lite = (section.figures[row]["l1"] for row in ("fomm", "lite"))
    assert fomm.value["mean"] == pytest.approx((5 + 2 + 6 + 8) / 4)
    assert fomm.seeds == [5.0, 5.5] and lite.seeds == [2.5, 2.5]
    assert fomm.value["low"] < 5.25 < fomm.value["high"]
    # In every clip lite has half of fomm's, but of a's, where one seed has a third.
    assert lite.ratio is not None and lite.ratio["mean"] == pytest.approx(10 / 21)
    assert 0.4 <= lite.ratio["low"] <= lite.ratio["high"] <= 0.5
    assert fomm.ratio is not None and fomm.ratio["low"] == fomm.ratio["high"] == 1
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "table.csv").open()))
    means = [(row["row"], row["measure"], float(row["mean"])) for row in rows]
    assert means[::2] == [("fomm", "l1", 5.25), ("lite", "l1", 2.5)]
    assert json.loads((out / "table.json").read_text())["evaluations"]["real"]["clips"] == 4
    assert "5.2500" in (out / "table.md").read_text()
    strip, plot = (cv2.imread(str(out / name)) for name in ("real-strip.png", "real.png"))
    assert plot.shape[0] > 80 and strip.shape[1] % 4 == 0  # source, driving, two rows
    levels = set(np.unique(strip)) & {5, 25, 20, 100, 40, 200}
    assert {40, 200, 5, 20} <= levels, "predictions of both, source and driving frame of the first"


def test_results_of_another_plan_are_refused(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    table("lite", seeds=[0])
    file, results = tmp_path / "table.toml", tmp_path / "out/rows/lite/seed0/real/results.json"
    fakes.done.clear()
    for old, new in (("max_steps=40", "max_steps=41"), ('data = ["test"]', 'data = ["other"]')):
        file.write_text(PLAN.replace(old, new))
        with pytest.raises(InputError) as error:
            table()
        assert str(results) in error.value.message
    file.write_text(PLAN)
    results.write_text("{")
    with pytest.raises(InputError):
        table()
    assert fakes.done == []
    with pytest.raises(ConfigError):
        table(minutes=0)


def test_the_papers_ratios_stand_beside_those_of_its_own_tasks() -> None:
    assert page.PAPER["reconstruction", "l1"] == 0.9 and page.PAPER["transfer", "fvd"] == 0.84
