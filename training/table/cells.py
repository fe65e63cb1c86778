"""Do what a cell asks for and is not done yet: train it, measure it, keep pictures of it."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...runtime.support.errors import CheckpointError, InputError
from ..checkpoint import load_checkpoint
from ..evaluation.command import add_evaluate
from ..evaluation.loop import Row
from ..evaluation.run import run
from .plan import Cell
from .samples import Album, samples_file

Report = Callable[[str], None]
Register = Callable[[Any], None]


def results_of(cell: Cell, evaluation: str) -> Row | None:
    """The record of a finished evaluation; None where there is none yet.

    Raises:
        InputError: it is damaged, or was made by another command than the plan's.
    """
    path = cell.results(evaluation)
    try:
        record: Row = json.loads(path.read_text(encoding="utf-8"))
        step, settings = int(record["candidate"]["step"]), dict(record["settings"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise InputError(
            f"{path}: not the record of an evaluation: {error}", _again(path)
        ) from error
    asked = _parsed(cell.evaluate[evaluation], add_evaluate)
    wanted = {"task": asked.task, "data": " ".join(map(str, asked.data))}
    differing = [name for name, value in wanted.items() if settings.get(name) != value]
    if step != cell.steps:
        differing.append(f"{step} steps, not {cell.steps}")
    if differing:
        fault = f"{path} is of another plan: {', '.join(differing)}"
        raise InputError(fault, f"give another -o, or {_again(path)}")
    return record


def _again(path: Path) -> str:
    return f"remove {path.parent}: it is made again"


def unfinished(cell: Cell) -> list[str]:
    """The evaluations whose results or samples are not there yet."""
    return [
        name
        for name in cell.evaluate
        if results_of(cell, name) is None or not samples_file(cell.folder, name).exists()
    ]


def complete(cell: Cell, register_train: Register, report: Report, minutes: float | None) -> bool:
    """Train a cell to its last step and evaluate it, as far as that is not done yet.

    Args:
        register_train: adds `sonomime train` to a parser.
        minutes: as of `sonomime train`; None: no limit.

    Returns:
        whether it is all done; False if the time was up.
    """
    left = unfinished(cell)
    if not left:
        return True
    checkpoint = cell.run / "checkpoint.pt"
    if _steps(checkpoint) < cell.steps:
        words = [*cell.train, *(["--resume"] if checkpoint.exists() else [])]
        words += [] if minutes is None else ["--max-minutes", f"{minutes:g}"]
        report(f"{cell.row}, seed {cell.seed}: training")
        args = _parsed(words, register_train)
        args.run(args)
    if _steps(checkpoint) < cell.steps:
        return False
    for name in left:
        report(f"{cell.row}, seed {cell.seed}: {name}")
        album = Album()
        with contextlib.redirect_stdout(io.StringIO()):  # its summary; the table says it all
            run(_parsed(cell.evaluate[name], add_evaluate), album.add)
        album.save(cell.folder, name)
    return True


def _steps(checkpoint: Path) -> int:
    """How far a training is."""
    try:
        return load_checkpoint(checkpoint).step if checkpoint.exists() else 0
    except CheckpointError as error:
        raise CheckpointError(error.message, f"remove {checkpoint.parent}") from error


def _parsed(words: Sequence[str], register: Register) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sonomime")
    register(parser.add_subparsers())
    return parser.parse_args([os.fspath(word) for word in words])
