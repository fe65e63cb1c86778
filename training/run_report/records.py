"""Reads what a run leaves; the run may still be going."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.support.dataclass_parser import plain
from ...runtime.support.errors import InputError
from ..config import Config, has, settings
from ..config_file import load_config, preset_names

Line = dict[str, Any]
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Steps and values, finite, of the same length."""

FIGURES = ("l1", "hold", "rate", "seconds_per_step", "waiting")
"""What a line of the log holds beside the losses."""
LATEST = 20
"""Lines of the log that a figure of "now" is the mean of: single batches differ much."""
_WIDTHS = ("width", "fine", "coarse")


@dataclass(frozen=True)
class Run:
    """A run's folder as it was read. `label` tells it from the others on the page."""

    folder: Path
    label: str
    facts: Line  # run.json; empty in a run of an older sonomime
    log: list[Line]
    probes: list[Line]  # one for each step, with its points
    warnings: list[Line]
    pictures: list[tuple[int, Path]]
    unread: int  # lines that are no records, but for one that is just being written

    @property
    def step(self) -> int:
        return int(max((line["step"] for line in self.log[-1:] + self.probes[-1:]), default=0))

    @property
    def losses(self) -> list[str]:
        """Their names, in the order in which they appear."""
        names = dict.fromkeys(name for line in self.log for name in line)
        return [name for name in names if name not in ("step", *FIGURES) and self.has(name)]

    def has(self, name: str) -> bool:
        return len(self.curve(name)[0]) > 0

    def curve(self, name: str) -> Curve:
        """A figure of the log over the steps."""
        return curve_of(self.log, name)

    def now(self, name: str) -> float | None:
        """The mean of the latest lines; None where there are none."""
        values = self.curve(name)[1][-LATEST:]
        return float(values.mean()) if len(values) else None

    def seconds(self) -> float:
        """How long it has trained."""
        steps, each = self.curve("seconds_per_step")
        return float((np.diff(steps, prepend=0) * each).sum())

    def setting(self, name: str) -> Any:
        """A setting by its dotted name; None where it is not known."""
        value: Any = self.facts.get("config")
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def settings(self) -> Line:
        """The settings that its family has, by dotted name; empty where they are not known."""
        family = self.setting("model.family")
        names = (name for name, _, facts in settings(Config()) if has(family, facts))
        return {name: self.setting(name) for name in names if self.setting(name) is not None}

    def widths(self) -> Line:
        """The widths of the networks that the model has."""
        own = self.settings().items()
        return {name: value for name, value in own if name.rsplit(".", 1)[-1] in _WIDTHS}

    def changed(self) -> Line:
        """Settings that differ from the preset's."""
        preset = self.setting("preset")
        if preset not in preset_names():
            return {}
        known = {name: value for name, value, _ in settings(load_config(preset))}
        return {k: v for k, v in self.settings().items() if v != plain(known[k])}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs, with labels that tell them apart: what their paths do not share.

    Raises:
        InputError: a folder holds no run.
    """
    parts = [folder.resolve().parts for folder in folders]
    first = next((i for i, each in enumerate(zip(*parts, strict=False)) if len({*each}) > 1), -1)
    ends = zip(*(reversed(each) for each in parts), strict=False)
    last = next((i for i, each in enumerate(ends) if len({*each}) > 1), 0)
    labels = ["/".join(each[first : len(each) - last]) or each[-1] for each in parts]
    return [_read(folder, label) for folder, label in zip(folders, labels, strict=True)]


def _read(folder: Path, label: str) -> Run:
    if not (folder / "log.jsonl").is_file():
        hint = "give the folder that `sonomime train -o` wrote"
        raise InputError(f"{folder}: no run: it has no log.jsonl", hint)
    read = {name: _lines(folder / f"{name}.jsonl") for name in ("log", "probe", "warnings")}
    probes = {line["step"]: line for line in read["probe"][0]}  # the end looks again at its step
    pictures = [
        (int(path.stem), path)
        for path in sorted((folder / "pictures").glob("*.png"))
        if path.stem.isdecimal() and (not probes or int(path.stem) in probes)
    ]  # others are of a run that was begun here before, and was killed
    facts: Line = {}
    with suppress(OSError, ValueError, TypeError):
        facts = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    unread = sum(count for _, count in read.values())
    log, warnings = read["log"][0], read["warnings"][0]
    return Run(folder, label, facts, log, list(probes.values()), warnings, pictures, unread)


def _lines(path: Path) -> tuple[list[Line], int]:
    """The records of a file, and how many lines are none. What has no line break yet is just being
    written, and is left out."""
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})", "check the path") from error
    records: list[Line] = []
    written = text.split("\n")[:-1]
    for line in written:
        try:
            record = json.loads(line, parse_constant=lambda name: None)  # NaN
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and type(record.get("step")) is int:
            records.append(record)
    return records, len(written) - len(records)


def curve_of(lines: Sequence[Line], name: str, place: int | None = None) -> Curve:
    """A figure over the steps, where it is a finite number; `place`: of a list."""
    found = []
    for line in lines:
        value = line.get(name)
        if place is not None and isinstance(value, list) and len(value) > place:
            value = value[place]
        if isinstance(value, int | float) and math.isfinite(value):
            found.append((line["step"], float(value)))
    steps, values = np.array(found, np.float64).reshape(-1, 2).T
    return steps, values


def summary(run: Run) -> Line:
    """The run in numbers, as `--json` prints it; what is not known is None."""
    l1, hold = run.now("l1"), run.now("hold")
    probe = {k: v for k, v in run.probes[-1].items() if k != "points"} if run.probes else None
    return {
        "run": str(run.folder),
        "preset": run.setting("preset"),
        "size": run.setting("model.image_size"),
        "seed": run.setting("train.seed"),
        "step": run.step,
        "max_steps": run.setting("train.max_steps"),
        "seconds": round(run.seconds(), 1),
        "seconds_per_step": run.now("seconds_per_step"),
        "waiting": run.now("waiting"),
        "l1": l1,
        "hold": hold,
        "l1_ratio": l1 / hold if l1 is not None and hold else None,
        "losses": {name: run.now(name) for name in run.losses},
        "probe": probe,
        "warnings": run.warnings,
        "pictures": len(run.pictures),
        "unread_lines": run.unread,
        **{name: run.facts.get(name) for name in ("device", "weights", "labels", "data", "starts")},
    }
