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

from sonomime.runtime.support.errors import (
    BackendError,
    ConfigError,
    InputError,
    OutputError,
    SonomimeError,
)
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.commands import add_train
from sonomime.training.evaluation.loop import Frame
from sonomime.training.evaluation.strips import TILE, Sketch
from sonomime.training.table import cells, page
from sonomime.training.table.figures import strip
from sonomime.training.table.make import Done, make_table
from sonomime.training.table.plan import read_plan
from sonomime.training.table.samples import Album, read_samples

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
OWN_MOTION = {"fomm": "absolute", "lite": "relative"}
SUBJECTS = ["a", "b", "c", "c"]
LITE = lively_checkpoint("lite", SMALL_LITE)


def record(row: str, seed: int, steps: int, data: str) -> dict[str, Any]:
    values = L1.get((row, seed), L1["lite", 0])
    clips = [
        {"clip": f"{i}", "subject": subject, "methods": {"model": measures(value)}}
        for i, (subject, value) in enumerate(zip(SUBJECTS, values, strict=True))
    ]
    if row == "lite":  # in another order
        clips.reverse()
    value = {"value": 10.0 * values[0], "low": 1.0 + seed, "high": None}
    return {
        "candidate": {"step": str(steps), "own_motion": OWN_MOTION[row]},
        "settings": {"task": "reconstruction", "data": data},
        "clips": clips,
        "distances": [
            {"measure": "vgg_distance", "statistic": "mean", "methods": {"model": {"mean": 0}}},
            {"measure": "fd_squeeze", "statistic": "frechet", "methods": {"model": value}},
            {"measure": "kd_squeeze", "statistic": "kernel", "methods": {"model": value}},
        ],
    }


def measures(value: float) -> dict[str, Any]:
    """Of a clip; in one the agreement is not defined."""
    agreement = None if value == 8 else value
    perceptual = {"vgg_distance": value / 2}
    return {"l1": value, "ssim": None, "motion_agreement": agreement, "perceptual": perceptual}


class Fakes:
    """Stand for training and evaluation, which take no time; ``done`` says what was asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fault: SonomimeError | None = None  # of fomm's training
        self.said: list[str] = []

    def register_train(self, sub: Any) -> None:
        add_train(sub)
        sub.choices["train"].set_defaults(run=self.train)

    def train(self, args: argparse.Namespace) -> None:
        """Stops at half if there is a limit."""
        folder = args.output
        folder.mkdir(parents=True, exist_ok=True)
        row, seed = folder.parts[-3:-1]
        self.done.append(f"train {row} {seed}{' again' if args.resume else ''}")
        if self.fault and row == "fomm":
            raise self.fault
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
    for folder in ("clips", "test", "other"):
        (tmp_path / folder).mkdir()

    def make(*rows: str, seeds: Sequence[int] = (), minutes: float | None = None) -> Done:
        fakes.said.clear()
        asked = {"row": list(rows), "seed": list(seeds), "max_minutes": minutes}
        args = argparse.Namespace(plan=file, output=tmp_path / "out", **asked)
        return make_table(read_plan(file), args, fakes.register_train, fakes.said.append)

    return make


def test_cells_are_completed_one_by_one_and_once(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    assert table("lite", minutes=1).missing == [
        f"{row} (seed {seed})" for seed in (0, 1) for row in ("fomm", "lite")
    ]
    assert fakes.done == ["train lite seed0"], "the time is up"
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
    networks = ["vgg_distance", "fd_squeeze", "kd_squeeze"]
    (terms,) = section.terms
    assert "absolute (fomm); relative (lite)" in terms
    assert known == ["l1", "motion_agreement", *networks], "others are defined nowhere"
    distance = section.figures["lite"]["fd_squeeze"]
    assert (distance.value["mean"], distance.value["low"], distance.seeds) == (20, 1.5, [20, 20])
    assert distance.ratio is not None and distance.ratio["mean"] == pytest.approx(20 / 50)
    fomm, lite = (section.figures[row]["l1"] for row in ("fomm", "lite"))
    assert fomm.value["mean"] == pytest.approx((5 + 2 + 6 + 8) / 4)
    assert fomm.seeds == [5.0, 5.5] and lite.seeds == [2.5, 2.5]
    assert fomm.value["low"] < 5.25 < fomm.value["high"]
    agreement = section.figures["fomm"]["motion_agreement"]
    assert agreement.value["mean"] == pytest.approx((5 + 2 + 6) / 3)
    distance = section.figures["lite"]["vgg_distance"]  # of each clip, so its ratio is paired
    assert distance.value["mean"] == 1.25 and distance.ratio is not None
    assert distance.ratio["low"] == pytest.approx(lite.ratio["low"] if lite.ratio else 0)
    assert [column.compared for column in section.columns] == [True, False, True, True, False]
    # In every clip lite has half of fomm's, but of a's, where one seed has a third.
    assert lite.ratio is not None and lite.ratio["mean"] == pytest.approx(10 / 21)
    assert 0.4 <= lite.ratio["low"] <= lite.ratio["high"] <= 0.5
    assert fomm.ratio is not None and fomm.ratio["low"] == fomm.ratio["high"] == 1
    out = tmp_path / "out"
    rows = list(csv.DictReader((out / "table.csv").open()))
    means = [(row["row"], row["measure"], float(row["mean"])) for row in rows]
    assert means[::5] == [("fomm", "l1", 5.25), ("lite", "l1", 2.5)]
    assert json.loads((out / "table.json").read_text())["evaluations"]["real"]["clips"] == 4
    text = (out / "table.md").read_text()
    assert "5.2500" in text and terms in text
    strip, plot = (cv2.imread(str(out / name)) for name in ("real-strip.png", "real.png"))
    assert plot.shape[0] > 80 and strip.shape[1] % 4 == 0  # source, driving, two rows
    levels = set(np.unique(strip)) & {5, 25, 20, 100, 40, 200}
    assert {40, 200, 5, 20} <= levels, "predictions of both, source and driving frame of the first"


def test_results_of_another_plan_are_refused(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    table("lite", seeds=[0])
    file, folder = tmp_path / "table.toml", tmp_path / "out/rows/lite/seed0"
    fakes.done.clear()
    for old, new in (
        ("max_steps=40", "max_steps=41"),
        ('data = ["test"]', 'data = ["other"]'),
        ('data = ["test"]', 'data = ["test"]\noptions = ["--max-frames", "3"]'),
        ('data = ["clips"]', 'data = ["other"]'),
        ('"train.max_steps=40"', '"train.max_steps=40", "train.learning_rate=0.5"'),
        ("size = 128", "size = 256"),
    ):
        file.write_text(PLAN.replace(old, new))
        for rows in ((), ("fomm",)):
            with pytest.raises(InputError) as error:
                table(*rows)
            assert str(folder / "real") in error.value.message
            trained = "real" not in error.value.hint
            assert str(folder) in error.value.hint and trained == ('["test"]' not in old)
    file.write_text(PLAN.replace('"reconstruction"', '"reconstructions"'))
    with pytest.raises(ConfigError):  # a slip is no reason to remove results
        table()
    # What changes no number may change; so may the place of the plan and its data.
    file.write_text(PLAN.replace("train.max_steps=40", 'train.max_steps=40", "train.log_every=7'))
    assert table("lite", seeds=[0]).sections
    (tmp_path / "out").rename(tmp_path / "moved")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "out").symlink_to(tmp_path / "moved")
    (elsewhere / "table.toml").write_text(PLAN)
    asked = {"row": ["lite"], "seed": [0], "max_minutes": None, "output": elsewhere / "out"}
    args = argparse.Namespace(plan=elsewhere / "table.toml", **asked)
    assert make_table(read_plan(args.plan), args, fakes.register_train, print).sections
    (tmp_path / "moved").rename(tmp_path / "out")
    file.write_text(PLAN)
    (folder / "real/results.json").write_text("{")
    with pytest.raises(InputError):
        table()
    assert fakes.done == []
    with pytest.raises(ConfigError):
        table(minutes=0)


def test_results_of_which_nothing_is_known_are_taken_but_named(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    table()
    folder = tmp_path / "out/rows/lite/seed0/real"
    (folder / "plan.json").unlink()
    table()
    assert str(folder) in fakes.said[0] and len(fakes.said) == 1
    (folder / "plan.json").write_text("[")
    with pytest.raises(InputError):
        table()


def test_a_training_of_another_plan_is_refused(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    table("lite", minutes=1)
    run = tmp_path / "out/rows/lite/seed0/run"
    (tmp_path / "table.toml").write_text(PLAN.replace("steps=40", "steps=50"))
    with pytest.raises(InputError) as error:
        table()
    assert str(run) in error.value.message and str(run.parent) in error.value.hint
    (tmp_path / "table.toml").write_text(PLAN)
    Checkpoint(LITE.config, 41, LITE.weights).save(run / "checkpoint.pt")
    with pytest.raises(InputError) as error:
        table()
    assert "41" in error.value.message and str(run) in error.value.hint
    assert fakes.done == ["train lite seed0"]


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('data = ["test"]', 'data = ["gone"]', "gone"),
        ('data = ["clips"]', 'data = ["gone"]', "gone"),
        ('task = "reconstruction"', 'task = "reconstructions"', "--task"),
        ('["test"]', '["test"]\noptions = ["--max-framez", "3"]', "--max-framez"),
        ('["test"]', '["test"]\noptions = ["--network", "squeezenet=gone.pth"]', "gone.pth"),
        ("size = 128", 'options = ["--reshume"]', "--reshume"),
        ('"train.max', '"loss.perceptual_weights=gone.pth", "train.max', "gone.pth"),
    ],
)
def test_what_would_stop_it_later_is_said_before_anything_is_trained(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path, old: str, new: str, named: str
) -> None:
    plan = PLAN.replace('{name = "fomm"}, {name = "lite"}', '{name = "fomm"}')
    assert plan.count(old)
    (tmp_path / "table.toml").write_text(plan.replace(old, new))
    with pytest.raises((ConfigError, InputError)) as error:
        table()
    assert named in error.value.message and fakes.done == []


def test_results_of_other_clips_are_not_compared(
    table: Callable[..., Done], tmp_path: Path
) -> None:
    table()
    results = tmp_path / "out/rows/lite/seed1/real/results.json"
    made = json.loads(results.read_text())
    made["clips"][0]["clip"] = "another"
    results.write_text(json.dumps(made))
    with pytest.raises(InputError) as error:
        table()
    assert "lite" in error.value.message and "seed 1" in error.value.message


def test_a_cell_that_fails_does_not_stop_the_others(
    table: Callable[..., Done], fakes: Fakes
) -> None:
    fakes.fault = OutputError("the disk is full")
    with pytest.raises(OutputError):
        table()
    assert fakes.done == ["train fomm seed0"]
    fakes.fault = BackendError("too little memory")
    done = table()
    assert done.fault is fakes.fault and done.missing == ["fomm (seed 0)", "fomm (seed 1)"]
    assert list(done.sections[0].figures) == ["lite"]
    fakes.fault = None
    assert table().fault is None


def test_nothing_is_said_of_a_table_without_a_finished_cell(
    table: Callable[..., Done], tmp_path: Path
) -> None:
    done = table(minutes=1)
    assert done.sections == [] and len(done.missing) == 4
    assert json.loads(done.json)["evaluations"] == {}
    assert not (tmp_path / "out/table.json").exists()


def test_ratios_need_a_row_beside_the_baseline_and_fomm_the_papers(
    table: Callable[..., Done], tmp_path: Path
) -> None:
    table("fomm")
    text = tmp_path / "out/table.md"
    assert "Ratios to" not in text.read_text()
    table()
    assert "Ratios to fomm" in text.read_text() and "0.90" in text.read_text()
    (tmp_path / "table.toml").write_text('baseline = "lite"\n' + PLAN)
    table()
    assert "Ratios to lite" in text.read_text() and "0.90" not in text.read_text()


def test_an_album_keeps_frames_away_from_the_source_and_a_strip_takes_what_rows_share(
    tmp_path: Path,
) -> None:
    picture = np.zeros((8, 8), np.uint8)
    kept = {}
    for row, counts in (("one", (1, 5, 3)), ("other", (5, 5))):
        album = Album()
        for i, count in enumerate(counts):
            frames = [Frame(k, picture + k, prediction=picture) for k in range(count)]
            album.add(f"a/{i}.mp4", Sketch(picture, frames))
        album.save(tmp_path / row, "real")
        kept[row] = read_samples(tmp_path / row, "real")
    names = [f"a/{i}.mp4 {number}" for i, number in ((0, 0), (1, 1), (1, 4), (2, 0), (2, 2))]
    assert kept["one"].names.tolist() == names
    made = strip("t", kept, "reconstruction", 3)
    assert made is not None and made.shape[0] // TILE == 2, "frames 1 and 4 of the second"
    album = Album()
    album.add("a", Sketch(picture, [Frame(0, picture)]))  # of a detection
    album.save(tmp_path / "none", "real")
    assert strip("t", {"none": read_samples(tmp_path / "none", "real")}, "detection", 3) is None


def test_the_papers_ratios_stand_beside_those_of_its_own_tasks() -> None:
    assert page.PAPER["reconstruction", "l1"] == 0.9 and page.PAPER["transfer", "fvd"] == 0.84
