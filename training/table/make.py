"""The whole of a table: its cells one after the other, then the page and the pictures."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...runtime.media.frames import png_bytes
from ...runtime.support.atomic_files import atomic_write_bytes, atomic_write_text
from ...runtime.support.dataclass_parser import plain
from ...runtime.support.errors import Busy, ConfigError, OutputError, SonomimeError, output_errors
from ..evaluation.report import json_text
from . import figures, page
from .cells import PLAN, check, complete, results_of, unfinished, without_plan
from .plan import Cell, TablePlan, cells
from .samples import read_samples, samples_file
from .section import Section, make_section


class Done(NamedTuple):
    """What a table has, the cells that are not finished, and table.json as text."""

    sections: list[Section]
    missing: list[str]
    json: str
    fault: SonomimeError | None = None  # the first that stopped a cell


def make_table(
    plan: TablePlan,
    args: Namespace,
    register_train: Callable[[Any], None],
    report: Callable[[str], None],
) -> Done:
    """Complete the cells that were asked for, as far as there is time and no other process has
    taken them, and write the table of all that are finished.

    Raises:
        ConfigError: settings are refused.
        InputError: results of another plan lie there; a file or folder is not there.
        OutputError: something cannot be written.
    """
    limit = args.max_minutes
    if limit is not None and not limit > 0:
        raise ConfigError(f"--max-minutes {limit:g} is not positive", "e.g. --max-minutes 60")
    output, start = args.output, time.monotonic()
    every = cells(plan, args.plan.parent, output)
    asked = [
        cell
        for cell in every
        if cell.row in (args.row or plan.names) and cell.seed in (args.seed or plan.seeds)
    ]
    for cell in asked:  # what is wrong is said now, not after hours of training
        check(cell, register_train)
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    _write(plan, every, output)
    old = [path for cell in every for path in without_plan(cell)]
    if old:
        names = ", ".join(map(str, old[:3])) + (", ..." if len(old) > 3 else "")
        report(f"warning: results without {PLAN} are not compared with the plan: {names}")
    fault: SonomimeError | None = None
    for cell in filter(unfinished, asked):
        left = None if limit is None else limit - (time.monotonic() - start) / 60
        try:
            if (left is not None and left <= 0) or not complete(cell, register_train, report, left):
                break  # the time is up
        except Busy:
            report(f"{cell.row}, seed {cell.seed}: another process is at it")
        except OutputError:  # a full disk will not take the next one either
            raise
        except SonomimeError as error:  # e.g. numbers that are not finite: the others can go on
            report(f"{cell.row}, seed {cell.seed}: stopped: {error.message}")
            fault = fault or error
        else:
            _write(plan, every, output)
    return _write(plan, every, output)._replace(fault=fault)  # with what others have finished


def _write(plan: TablePlan, every: Sequence[Cell], output: Path) -> Done:
    """The table of the cells whose evaluations are all there."""
    finished = [cell for cell in every if not unfinished(cell)]
    missing = [f"{cell.row} (seed {cell.seed})" for cell in every if cell not in finished]
    sections = []
    for evaluation in plan.evaluations if finished else ():
        name, task = evaluation.name, evaluation.task
        found = {(cell.row, cell.seed): results_of(cell, name) for cell in finished}
        records = {key: record for key, record in found.items() if record is not None}
        section = make_section(name, task, records, plan.names, plan.baseline)
        sections.append(section)
        if section.columns:
            atomic_write_bytes(output / f"{name}.png", png_bytes(figures.plot(section)))
        kept = [cell for cell in finished if samples_file(cell.folder, name).exists()]
        first = {cell.row: cell for cell in reversed(kept)}
        shown = {row: read_samples(first[row].folder, name) for row in plan.names if row in first}
        strip = figures.strip(f"{plan.title}: {name}", shown, task, plan.cases) if shown else None
        if strip is not None:
            atomic_write_bytes(output / f"{name}-strip.png", png_bytes(strip))
    done = Done(sections, missing, json_text(page.json_record(plain(plan), sections, missing)))
    if finished:
        atomic_write_text(output / "table.md", page.markdown(plan, sections, missing))
        atomic_write_text(output / "table.csv", page.csv_text(sections))
        atomic_write_text(output / "table.json", done.json)
    return done
