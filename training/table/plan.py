"""What a table compares: a TOML file, read strictly, becomes the commands of its cells."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.support.dataclass_parser import StrictError, parse
from ...runtime.support.errors import ConfigError
from ...runtime.support.table import is_name
from ..scale import load_scaled

CURE = "fix the table's file; docs/table.md has an example"
BASELINE = "fomm"


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

    @property
    def run(self) -> Path:
        """The folder of the training."""
        return self.folder / "run"

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
        for name in names:
            if not is_name(name) or Path(name).name != name or names.count(name) > 1:
                raise ConfigError(f"{path}: {what}: {name[:40]!r} is no name of its own", CURE)
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
    family = load_scaled(preset, row.set, plan.size, plan.width).model.family
    of_family = (word for each in plan.families if each.name == family for word in each.set)
    given = [_placed(each, beside) for each in (*plan.set, *of_family, *row.set)]
    given.append(f"train.seed={seed}")
    steps = load_scaled(preset, given, plan.size, plan.width).train.max_steps
    if steps == 0:  # epochs of any data: rows would not have the same budget by themselves
        fault = f"{row.name}: a table needs the number of steps"
        raise ConfigError(fault, 'e.g. set = ["train.max_steps=3000"]')
    folder = output / "rows" / row.name / f"seed{seed}"
    train = ["train", preset, "--data", *_paths(plan.data, beside), "-o", str(folder / "run")]
    if plan.size is not None:
        train += ["--size", str(plan.size)]
    if plan.width is not None:
        train += ["--width", f"{plan.width:g}"]
    train += [*plan.options, *(word for each in given for word in ("--set", each))]
    checkpoint = folder / "run" / "checkpoint.pt"
    evaluate = {
        each.name: (
            "evaluate", str(checkpoint), "--data", *_paths(each.data, beside),
            "--task", each.task, "-o", str(folder / each.name), *_options(each.options, beside),
        )
        for each in plan.evaluations
    }  # fmt: skip
    return Cell(row.name, seed, folder, tuple(train), steps, evaluate)


def _paths(names: Sequence[str], beside: Path) -> list[str]:
    return [str(beside / name) for name in names]


def _options(words: Sequence[str], beside: Path) -> list[str]:
    return [_placed(word, beside) if "=" in word else word for word in words]


def _placed(setting: str, beside: Path) -> str:
    """A setting KEY=PATH with a path that exists beside the plan made whole."""
    key, _, value = setting.partition("=")
    parts = [str(beside / part) if (beside / part).exists() else part for part in value.split(",")]
    return f"{key}={','.join(parts)}" if value else setting
