"""Do what a cell asks for and is not done yet: train it, measure it, keep pictures of it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ...runtime.support.atomic_files import atomic_write_text, locked
from ...runtime.support.errors import CheckpointError, ConfigError, InputError
from ..checkpoint import load_checkpoint
from ..evaluation.command import add_evaluate
from ..evaluation.loop import Row
from ..evaluation.networks.weights import parse_network
from ..evaluation.run import run
from .plan import CURE, RUN, WEIGHTS, Cell
from .samples import Album, samples_file

Report = Callable[[str], None]
Register = Callable[[Any], None]
PLAN = "plan.json"
"""In the folder of a part: what it was begun with."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}", CURE)


def results_of(cell: Cell, evaluation: str) -> Row | None:
    """The record of a finished evaluation; None where there is none yet.

    Raises:
        InputError: it is damaged, or was made by another command than the plan's.
    """
    path = cell.results(evaluation)
    try:
        record: Row = json.loads(path.read_text(encoding="utf-8"))
        step, task = int(record["candidate"]["step"]), record["settings"]["task"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}: not the record of an evaluation: {error}", _again(path.parent)
        ) from error
    check_plan(cell, evaluation)
    if step != cell.steps or task != cell.asked[evaluation]["task"]:
        fault = f"{path} is of another plan: {task} of {step} steps"
        raise InputError(fault, f"give another -o, or {_again(path.parent)}")
    return record


def check_plan(cell: Cell, part: str) -> None:
    """Compare what a part was begun with (`keep_plan`) with what the plan asks now.

    Raises:
        InputError: they differ. Settings that only one of the two knows do not count: another
            version of sonomime may have made it.
    """
    folder = cell.folder / part
    try:
        kept = dict(json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"{folder / PLAN}: cannot be read: {error}", _again(folder)) from error
    asked = cell.asked[part]
    differing = [name for name in asked if name in kept and kept[name] != asked[name]]
    if differing:
        texts = (f"{n} was {json.dumps(kept[n])}, is {json.dumps(asked[n])}" for n in differing)
        fault = f"{folder} is of another plan: {'; '.join(texts)}"
        trained = any(name in cell.asked[RUN] for name in differing)
        raise InputError(fault, f"give another -o, or {_again(cell.folder if trained else folder)}")


def without_plan(cell: Cell) -> list[Path]:
    """Results that nothing is known of but their task and steps: another version, or somebody,
    put them there."""
    folders = [cell.results(name).parent for name in cell.evaluate if cell.results(name).exists()]
    return [folder for folder in folders if not (folder / PLAN).exists()]


def keep_plan(cell: Cell, part: str) -> None:
    """Write what the plan asks of a part, before it is begun."""
    atomic_write_text(cell.folder / part / PLAN, json.dumps(cell.asked[part], indent=1) + "\n")


def check(cell: Cell, register_train: Register) -> None:
    """Look for what would stop an unfinished cell hours later.

    Raises:
        ConfigError: an option that `sonomime` does not know.
        InputError: its training is of another plan; a folder or file is not there.
        CheckpointError: its checkpoint cannot be read.
    """
    needed: list[Path] = []
    evaluations = {name: _parsed(words, add_evaluate) for name, words in cell.evaluate.items()}
    for name in unfinished(cell):
        check_plan(cell, RUN)
        args = evaluations[name]
        files = (file for text in args.network for file in parse_network(text)[1])
        needed += [*args.data, *(file.path for file in files)]
    if needed and _steps(cell) < cell.steps:
        args = _parsed(cell.train, register_train)
        key = f"{WEIGHTS}="
        files_set = (each.removeprefix(key) for each in args.set if each.startswith(key))
        needed += [*args.data, *map(Path, files_set), *filter(None, [args.start])]
    for path in needed:
        if not path.exists():
            fault = f"{cell.row}: there is no file or folder {path}"
            raise InputError(fault, "paths of a table are relative to its file")


def _again(folder: Path) -> str:
    return f"remove {folder}: it is made again"


def unfinished(cell: Cell) -> list[str]:
    """The evaluations whose results are not there yet, or whose samples are not, though the
    checkpoint is: nothing is trained again for pictures alone."""
    return [
        name
        for name in cell.evaluate
        if results_of(cell, name) is None
        or (cell.checkpoint.exists() and not samples_file(cell.folder, name).exists())
    ]


def complete(cell: Cell, register_train: Register, report: Report, minutes: float | None) -> bool:
    """Train an unfinished cell to its last step and evaluate it, as far as that is not done yet.

    Args:
        register_train: adds `sonomime train` to a parser.
        minutes: as of `sonomime train`; None: no limit.

    Returns:
        whether it is all done; False if the time was up.

    Raises:
        Busy: another process has taken it.
    """
    with locked(cell.folder):
        if _steps(cell) < cell.steps:
            keep_plan(cell, RUN)
            words = [*cell.train, *(["--resume"] if cell.checkpoint.exists() else [])]
            words += [] if minutes is None else ["--max-minutes", f"{minutes:g}"]
            report(f"{cell.row}, seed {cell.seed}: training")
            args = _parsed(words, register_train)
            args.run(args)
        if _steps(cell) < cell.steps:
            return False
        for name in unfinished(cell):
            report(f"{cell.row}, seed {cell.seed}: {name}")
            keep_plan(cell, name)
            album = Album()
            with contextlib.redirect_stdout(io.StringIO()):  # its summary; the table says it all
                run(_parsed(cell.evaluate[name], add_evaluate), album.add)
            album.save(cell.folder, name)
        return True


def _steps(cell: Cell) -> int:
    """How far a training is."""
    checkpoint = cell.checkpoint
    try:
        step = load_checkpoint(checkpoint).step if checkpoint.exists() else 0
    except CheckpointError as error:
        raise CheckpointError(error.message, _again(cell.folder / RUN)) from error
    if step > cell.steps:
        fault = f"{checkpoint} has {step} steps, which is more than the plan's {cell.steps}"
        raise InputError(fault, f"give another -o, or {_again(cell.folder / RUN)}")
    return step


def _parsed(words: Sequence[str], register: Register) -> argparse.Namespace:
    parser = _Parser(prog="sonomime")
    register(parser.add_subparsers())
    return parser.parse_args(words)
