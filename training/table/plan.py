"""What a table compares: a TOML file, read strictly, becomes the commands of its cells."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ...runtime.support.dataclass_parser import StrictError, parse
from ...runtime.support.errors import ConfigError
from ..config import Config, Family, settings
from ..config_file import config_from_dict, read_toml
from ..evaluation.networks.weights import parse_network
from ..scale import load_scaled

CURE = "fix the table's file; docs/table.md has an example"
BASELINE = "fomm"
RUN = "run"
"""The part of a cell that is its training; the others are its evaluations, by name."""
WEIGHTS = "loss.perceptual_weights"
"""The setting that is a path."""
NAME_RULE = "a name has letters, digits and . _ + -, and begins with a letter or a digit"
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)


@dataclass(frozen=True)
class RowPlan:
    """A row of the table: a preset, or a file of one's own, with its settings."""

    name: str
    preset: str = ""  # as `sonomime train` takes it; "": the row's name
    set: tuple[str, ...] = ()  # KEY=VALUE, after those of the table and of the family


@dataclass(frozen=True)
class FamilyPlan:
    """Settings for the rows of one family, which other families do not have."""

    name: str
    set: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationPlan:
    """One evaluation of every cell."""

    name: str
    task: str
    data: tuple[str, ...]
    options: tuple[str, ...] = ()  # more of `sonomime evaluate`, e.g. ["--max-frames", "20"]


@dataclass(frozen=True)
class TablePlan:
    """The whole file. Paths are relative to it."""

    rows: tuple[RowPlan, ...]
    data: tuple[str, ...]  # to train on
    evaluations: tuple[EvaluationPlan, ...]
    title: str = "Table 1"
    baseline: str = BASELINE  # the row that ratios are taken to
    seeds: tuple[int, ...] = (0,)
    size: int | None = None
    width: float | None = None
    options: tuple[str, ...] = ()  # more of `sonomime train`, e.g. ["--crop", "auto"]
    set: tuple[str, ...] = ()
    families: tuple[FamilyPlan, ...] = ()
    cases: int = 3  # drawn of each evaluation

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row.name for row in self.rows]


@dataclass(frozen=True, eq=False)
class Cell:
    """A row trained with one seed: its folder and its commands, as `sonomime` takes them."""

    row: str
    seed: int
    folder: Path
    train: tuple[str, ...]
    steps: int
    evaluate: dict[str, tuple[str, ...]]  # by the evaluation's name
    asked: dict[str, dict[str, Any]]
    """By part, what decides its numbers, wherever the plan lies: plain JSON types."""

    @property
    def checkpoint(self) -> Path:
        """What the training leaves."""
        return self.folder / RUN / "checkpoint.pt"

    def results(self, evaluation: str) -> Path:
        """What an evaluation leaves."""
        return self.folder / evaluation / "results.json"


def read_plan(path: Path) -> TablePlan:
    """Read a table's file.

    Raises:
        ConfigError: unreadable, an unknown key, a row or name that does not fit.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file", "check the path") from error
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}", CURE) from error
    try:
        plan = parse(TablePlan, table)
    except StrictError as error:
        raise ConfigError(f"{path}: {error}", error.hint or CURE) from error
    for what, names in (
        ("rows", plan.names),
        ("families", [each.name for each in plan.families]),
        ("evaluations", [each.name for each in plan.evaluations]),
    ):
        if not names and what != "families":
            raise ConfigError(f"{path}: there are no {what}", CURE)
        for name in names:
            if not _NAME.fullmatch(name) or names.count(name) > 1:
                raise ConfigError(f"{path}: {what}: {name[:40]!r} is no name of its own", NAME_RULE)
            if what == "families" and name not in get_args(Family):
                known = ", ".join(get_args(Family))
                raise ConfigError(f"{path}: there is no family {name!r}", f"families: {known}")
            if what == "evaluations" and (name == RUN or name.endswith(("-strip", ".npz"))):
                fault = f"{path}: an evaluation cannot be called {name!r}"
                raise ConfigError(fault, "files of the table have that name: choose another one")
    if plan.cases < 1:
        raise ConfigError(f"{path}: cases is {plan.cases}; it must be 1 or more", CURE)
    if plan.baseline and plan.baseline not in plan.names:
        fault = f"{path}: baseline: {plan.baseline!r} is not one of the rows"
        raise ConfigError(fault, f'rows: {", ".join(plan.names)}; or baseline = ""')
    if not plan.seeds or len(set(plan.seeds)) < len(plan.seeds):
        raise ConfigError(f"{path}: seeds must be one or more different numbers", CURE)
    return plan


def cells(plan: TablePlan, beside: Path, output: Path) -> list[Cell]:
    """The table's cells: seed by seed, so that a table with all rows is there early.

    Args:
        beside: the folder that the plan's paths are relative to.

    Raises:
        ConfigError: a row's settings are refused; before anything is trained.
    """
    return [_cell(plan, row, seed, beside, output) for seed in plan.seeds for row in plan.rows]


def _cell(plan: TablePlan, row: RowPlan, seed: int, beside: Path, output: Path) -> Cell:
    preset = row.preset or row.name
    if preset.endswith(".toml"):
        preset = str(beside / preset)
    path, table = read_toml(preset)  # alone: by itself it may not fit the plan's size, say
    family = config_from_dict(table, str(path)).model.family
    of_family = (word for each in plan.families if each.name == family for word in each.set)
    given = [*plan.set, *of_family, *row.set, f"train.seed={seed}"]
    config = load_scaled(preset, given, plan.size, plan.width)
    steps = config.train.max_steps
    if steps == 0:  # epochs of any data: rows would not have the same budget by themselves
        fault = f"{row.name}: a table needs the number of steps"
        raise ConfigError(fault, 'e.g. set = ["train.max_steps=3000"]')
    folder = output / "rows" / row.name / f"seed{seed}"
    train = ["train", preset, "--data", *_paths(plan.data, beside), "-o", str(folder / RUN)]
    if plan.size is not None:
        train += ["--size", str(plan.size)]
    if plan.width is not None:
        train += ["--width", str(plan.width)]
    train += _options(plan.options, beside)
    train += [word for each in given for word in ("--set", _setting(each, beside))]
    checkpoint = str(folder / RUN / "checkpoint.pt")
    evaluate = {
        each.name: (
            "evaluate", checkpoint, "--data", *_paths(each.data, beside),
            "--task", each.task, "-o", str(folder / each.name), *_options(each.options, beside),
        )
        for each in plan.evaluations
    }  # fmt: skip
    asked: dict[str, Any] = {RUN: {**_decisive(config), "data": plan.data, "options": plan.options}}
    for each in plan.evaluations:
        of_it = {
            "task": each.task,
            "evaluation data": each.data,
            "evaluation options": each.options,
        }
        asked[each.name] = asked[RUN] | of_it
    asked = json.loads(json.dumps(asked))
    return Cell(row.name, seed, folder, tuple(train), steps, evaluate, asked)


def _decisive(config: Config) -> dict[str, Any]:
    """The settings that decide the numbers."""
    return {
        name: value
        for name, value, _ in settings(config)
        if name != "data.workers" and not name.endswith("_every")
    }


def _paths(names: Sequence[str], beside: Path) -> list[str]:
    return [str(beside / name) for name in names]


def _options(words: Sequence[str], beside: Path) -> list[str]:
    """Options with their paths beside the plan."""
    placed: list[str] = []
    for word in words:
        both = word.split("=", 1) if word.startswith(("--from=", "--network=")) else [word]
        placed += both
    for i, option in enumerate(placed[:-1]):
        if option == "--from":
            placed[i + 1] = str(beside / placed[i + 1])
        if option == "--network":
            name, files = parse_network(placed[i + 1])
            ends = (f"@{file.sha256}" if file.sha256 else "" for file in files)
            paths = (f"{beside / file.path}{end}" for file, end in zip(files, ends, strict=True))
            placed[i + 1] = f"{name}={','.join(paths)}"
    return placed


def _setting(setting: str, beside: Path) -> str:
    """A setting; the path of weights is beside the plan."""
    key, _, value = setting.partition("=")
    path = value.strip("\"'")
    return f"{key}={beside / path}" if key == WEIGHTS and path else setting
