"""A table goes on where it stopped, and sums up what its cells found."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from sonomime.runtime.support.atomic_files import locked
from sonomime.runtime.support.errors import BackendError, OutputError
from sonomime.training.evaluation.loop import Frame
from sonomime.training.evaluation.strips import TILE, Sketch
from sonomime.training.table import page
from sonomime.training.table.figures import strip
from sonomime.training.table.make import Done
from sonomime.training.table.samples import Album, read_samples

from .fakes import PLAN, Fakes


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


def test_results_without_a_checkpoint_are_enough_and_without_samples_leave_the_strip(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    table(seeds=[0])
    out, width = tmp_path / "out", cv2.imread(str(tmp_path / "out/real-strip.png")).shape[1]
    fakes.done.clear()
    for row, files in (("lite", ("run/checkpoint.pt", "real.npz")), ("fomm", ("real.npz",))):
        for file in files:
            (out / "rows" / row / "seed0" / file).unlink()
    (section,) = table(seeds=[0]).sections
    assert fakes.done == ["evaluate fomm seed0"], "its checkpoint is there"
    assert list(section.figures) == ["fomm", "lite"]
    assert cv2.imread(str(out / "real-strip.png")).shape[1] < width


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


def test_a_cell_that_another_process_has_taken_is_left_to_it(
    table: Callable[..., Done], fakes: Fakes, tmp_path: Path
) -> None:
    with locked(tmp_path / "out/rows/fomm/seed0"):
        done = table(seeds=[0])
    assert fakes.done == ["train lite seed0", "evaluate lite seed0"] and done.fault is None
    assert "fomm (seed 0)" in done.missing
    assert any("fomm" in line for line in fakes.said)
    assert table(seeds=[0]).missing == ["fomm (seed 1)", "lite (seed 1)"]


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
