"""Many clips at once: a table with one row a job, worked on by several processes or machines."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from .animator import Animator
from .backends.base import default_threads
from .bundle.bundle import Bundle
from .command_options import (
    add_job,
    gpus_of,
    job_of,
    motion_of,
    opening_of,
    opening_on_ray,
)
from .fastest import open_session
from .pipeline import Job, animate_files
from .quality import as_rows
from .readers.source import warn_once
from .support.errors import EXIT_DAMAGED, ConfigError, InputError, SonomimeError, output_errors
from .support.foreign_errors import as_ours
from .support.on_ray import OnRay, check_ray
from .support.processes import Processes
from .support.progress import print_beside, progress
from .support.spread import Lost, spread
from .support.table import read_table
from .template import shipped

log = logging.getLogger("sonomime")

FILES = ("source", "driving", "output")
"""The columns that every table has."""
_PATHS = ("landmarks", "debug-picture")
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0")
MADE, SKIPPED, FAILED = "made", "skipped", "failed"


@dataclass(frozen=True)
class Row:
    """A job, how its motion is used (arguments of `Animator`), and where it stands."""

    where: str
    line: int
    job: Job
    motion: dict[str, Any]

    def record(self, state: str, **more: Any) -> dict[str, Any]:
        return {"line": self.line, "state": state, "output": self.job.output, **more}

    def failed(self, error: SonomimeError, warnings: Sequence[str] = ()) -> dict[str, Any]:
        said = {"error": error.message, "hint": error.hint, "exit_code": error.exit_code}
        return self.record(FAILED, **said, warnings=warnings)


class _RowParser(argparse.ArgumentParser):
    """Of the options of one row."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, "the columns are options of `sonomime animate`: see its --help")


# -- the table -------------------------------------------------------------------------------------


def read_rows(table: Path, args: argparse.Namespace) -> list[Row]:
    """The rows; `args` has what was given for all of them, which an empty cell leaves as it is.

    Raises:
        InputError: naming file and line: what `read_table` raises; a value that its option does not
            take; options that do not go together; an output that two rows have, or that is an
            input.
    """
    parser = _RowParser(add_help=False, allow_abbrev=False)
    add_job(parser)
    actions = {name[2:]: action for name, action in parser._option_string_actions.items()}
    rows: list[Row] = []
    outputs: dict[Path, Row] = {}
    for line, cells in read_table(table, FILES, list(actions)):
        where = f"{table}:{line}"
        own = argparse.Namespace(**vars(args))
        words = []
        try:
            for name in FILES:
                setattr(own, name, _file(table, name, cells.pop(name)))
            for column, value in cells.items():
                if not value:
                    continue
                if actions[column].nargs == 0:
                    if value.lower() not in (*_YES, *_NO):
                        hint = "write yes or no, or leave the cell empty"
                        raise ConfigError(f"{column} is {value!r}", hint)
                    words += [f"--{column}"] * (value.lower() in _YES)
                    setattr(own, actions[column].dest, actions[column].default)
                    continue
                if column in _PATHS and value not in ("auto", "none"):
                    value = str(table.absolute().parent / value)
                words.append(f"--{column}={value}")
            parser.parse_args(words, own)
            row = Row(where, line, job_of(own), motion_of(own))
        except SonomimeError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from None
        for made in filter(None, (row.job.output, row.job.debug_picture)):
            there = made.resolve()
            nested = (each for each in outputs if there in each.parents or each in there.parents)
            if (other := there if there in outputs else next(nested, None)) is not None:
                what = f"{where}: {made} is an output of line {outputs[other].line}, or in one"
                raise InputError(what, "give each row names of its own")
            outputs[there] = row
        rows.append(row)
    if not rows:
        raise InputError(f"{table}: no row below the header", "write a row for each job")
    for row in rows:
        for file in (row.job.source, row.job.driving):
            read = file.resolve()
            related = (e for e in outputs if e == read or read in e.parents or e in read.parents)
            if (there_made := next(related, None)) is not None:
                line = outputs[there_made].line
                what = f"{row.where}: {file} is an output of line {line}, holds one or lies in one"
                raise InputError(what, "rows are made in any order: use two tables")
    return rows


def _file(table: Path, column: str, value: str) -> Path:
    if not value:
        raise ConfigError(f"the cell of {column!r} is empty", "give the path of a file")
    path = table.absolute().parent / value
    is_template = column == "driving" and value in shipped() and not path.exists()
    return Path(value) if is_template else path


# -- a worker --------------------------------------------------------------------------------------


class _Lines(logging.Handler):
    """Keeps what is logged, for the record of a row."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Worker:
    """Makes one row after the other with one opened model. Arguments of `Bundle.open` and
    `Animator.open`."""

    def __init__(self, bundle: Path | None, digest: str, opening: dict[str, Any]) -> None:
        self._session = Animator.open(Bundle.open(bundle, digest), **opening).session
        self._lines = _Lines()
        log.addHandler(self._lines)
        log.propagate = False

    def __call__(self, row: Row) -> dict[str, Any]:
        """The row's record."""
        self._lines.lines = []
        warn_once.cache_clear()  # what is said of a clip is said in each row that reads it
        try:
            if is_there(row.job.output):  # by a worker that was lost before it could say so
                return row.record(SKIPPED)
            done = animate_files(Animator(self._session, **row.motion), row.job)
        except Exception as error:
            return row.failed(as_ours(error), self._lines.lines)
        made = asdict(done) | {"quality": as_rows(done.quality)}
        return row.record(MADE, warnings=self._lines.lines) | made


def is_there(output: Path) -> bool:
    """Whether a row is done: outputs appear whole or not at all."""
    with output_errors(output):
        return any(output.iterdir()) if output.is_dir() else output.exists()


# -- the run ---------------------------------------------------------------------------------------


class _Report:
    """Tells of each row: a record or the output's path on standard output, the rest to people."""

    def __init__(self, as_json: bool) -> None:
        self._json, self._out = as_json, sys.stdout
        self._warned: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.damaged = False

    def tell(self, row: Row, record: dict[str, Any]) -> None:
        state = record["state"]
        self.counts[state] += 1
        self.damaged |= record.get("damaged", False)
        lines = []
        for warning in record.get("warnings", ()):
            if warning not in self._warned:  # many rows may read the same clip
                self._warned.add(warning)
                lines.append(f"warning: {row.where}: {warning}")
        if state == FAILED:
            lines.append(f"error: {row.where}: {record['error']}")
            lines += [f"hint: {record['hint']}"] if record["hint"] else []
        elif state == SKIPPED:
            lines.append(f"{row.where}: {row.job.output} is there already, skipped")
        elif record["doubts"]:
            lines.append(f"{row.where}: {record['doubts']}")
        for line in lines:
            print_beside(line, sys.stderr)
        if self._json:
            print_beside(json.dumps(record, default=str), self._out)
        elif state == MADE:
            print_beside(str(row.job.output), self._out)


def run_batch(args: argparse.Namespace) -> int:
    """`sonomime animate --batch`: 8 if a row failed, or if an input was damaged.

    Raises:
        ConfigError: options that do not go together.
        InputError: what `read_rows` raises.
        BundleError, BackendError: no worker can open the model; what `OnRay` raises.
    """
    if args.debug_picture is not None:
        hint = "write a column debug-picture"
        raise ConfigError("--debug-picture names one file, and a table has many rows", hint)
    for name in ("bundle", "landmarks"):  # workers may have another folder
        if isinstance(path := getattr(args, name), Path):
            setattr(args, name, path.absolute())
    rows = read_rows(args.batch, args)
    report, todo = _Report(args.json), []
    for row in rows:
        if is_there(row.job.output):
            report.tell(row, row.record(SKIPPED))
        else:
            todo.append(row)
    for row, record in _records(args, todo):
        report.tell(row, record)
    counts = report.counts
    said = ", ".join(f"{counts[state]} {state}" for state in (MADE, SKIPPED, FAILED))
    print_beside(f"{args.batch}: {said}", sys.stderr)
    return EXIT_DAMAGED if report.damaged or counts[FAILED] else 0


def _records(args: argparse.Namespace, rows: Sequence[Row]) -> Iterator[tuple[Row, dict[str, Any]]]:
    if not rows:
        return
    with _crew(args) as crew:
        workers = args.jobs or (crew.room if isinstance(crew, OnRay) else 1)
        for index, said in progress(spread(crew, max(workers, 1), rows), len(rows), "rows"):
            row = rows[index]
            if isinstance(said, Lost):
                said = row.failed(said.error(str(row.job.output)))
            yield row, said


def _crew(args: argparse.Namespace) -> Processes | OnRay:
    if args.ray is None:
        opening = opening_of(args)
        if args.threads is None:
            opening["threads"] = max(default_threads() // (args.jobs or 1), 1)
    else:
        check_ray(args.ray)
        opening = opening_on_ray(args)
    bundle = Bundle.open(args.bundle)
    if args.backend == "auto":  # each worker by itself could take another engine
        with closing(open_session(bundle, **opening)) as session:
            opening["backend"] = session.backend.name
            opening["precision"] = session.backend.precision
    make = partial(Worker, args.bundle, bundle.digest, opening)
    if args.ray is None:
        return Processes(make)
    return OnRay(make, args.ray, opening["threads"], gpus_of(opening["backend"]))
