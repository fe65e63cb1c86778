"""A table never mixes plans, and says what is wrong before it trains."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sonomime.runtime.support.errors import (
    ConfigError,
    InputError,
)
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.table.make import Done, make_table
from sonomime.training.table.plan import read_plan

from .fakes import LITE, PLAN, Fakes


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
        ('["test"]', '["test"]\noptions = ["--network=squeezenet=gone.pth"]', "/gone.pth"),
        ("size = 128", 'options = ["--reshume"]', "--reshume"),
        ("size = 128", 'options = ["--from", "gone.pt"]', "/gone.pt"),
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
