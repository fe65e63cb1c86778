"""One subject of a phantom folder: drawn, or read from a file that a user edited."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.support.dataclass_parser import StrictError, parse, plain
from ...runtime.support.errors import InputError
from ...runtime.support.progress import progress
from ...runtime.support.table import spelling_hint
from .body import Body
from .heart import Heart
from .paint import Grid
from .pelvic import Pelvic
from .probe import out_of_range

ANATOMIES: dict[str, type[Any]] = {"pelvic": Pelvic, "heart": Heart}
"""Classes of `Body`, by what --anatomy calls them."""
CHECKED_STATES = 33
"""States checked along a manoeuvre, however many frames the clip has."""
_TRIES = 200
_LARGEST = 1 << 20  # bytes
_MOST_ERROR = 0.25  # pixels, of the map of a state
_TRIAL = 3.0  # mm, raster on which the tissue is painted for a trial
_HINT = "subjects/NAME.json of any phantom folder shows what it must look like"


@dataclass(frozen=True)
class Subject:
    """One subject. Speckle, noise and split follow from seed and number, as the parameters do where
    they are drawn; its files have its name."""

    anatomy: str
    seed: int
    number: int
    name: str
    parameters: Any = None

    @property
    def body(self) -> Body:
        return ANATOMIES[self.anatomy](self.parameters)

    @property
    def split(self) -> str:
        """Every fifth is for testing, every tenth for choosing between runs."""
        if self.number % 5 == 4:
            return "test"
        return "val" if self.number % 10 == 7 else "train"


def draw_subject(anatomy: str, seed: int, number: int) -> Subject:
    """The subject of that number, drawn again until its landmarks stay in the sector; InputError
    if none of many draws does."""
    name = f"{anatomy}{seed}-{number:03d}"
    for attempt in range(_TRIES):
        rng = np.random.default_rng([seed, number, 0, attempt])
        subject = Subject(anatomy, seed, number, name, ANATOMIES[anatomy].draw(rng))
        body = subject.body
        if body.why_impossible(body.states(CHECKED_STATES)) is None:
            return subject
    raise InputError(f"no possible {anatomy} subject in {_TRIES} draws", "choose another --seed")


@dataclass(frozen=True)
class _Head:
    anatomy: str
    speckle: tuple[int, int]  # seed and number


def subject_text(subject: Subject) -> str:
    """The content of a subject's file."""
    head = {"anatomy": subject.anatomy, "speckle": [subject.seed, subject.number]}
    return json.dumps({**head, **plain(subject.parameters)}, indent=2) + "\n"


def read_subject(path: Path, frames: int) -> Subject:
    """Read a subject's file, and check that the subject can be rendered in this many frames.

    Raises:
        InputError: naming the file and the parameter at fault: it cannot be read, a parameter is
            unknown, missing, of the wrong type or out of range, or nobody can be made like that.
    """
    if not re.fullmatch(r"\w[\w. -]*", path.stem):
        hint = "use letters, digits, _, . and - in its name"
        raise InputError(f"{path}: its name would be the clip's", hint)
    data = _read(path)
    try:
        head = parse(_Head, {key: data.pop(key) for key in ("anatomy", "speckle") if key in data})
        if (anatomy := ANATOMIES.get(head.anatomy)) is None:
            hint = spelling_hint(head.anatomy, ANATOMIES)
            raise StrictError("anatomy", f"{head.anatomy[:40]!r} is unknown", hint)
        if not all(0 <= number < 2**32 for number in head.speckle):
            raise StrictError("speckle", "its two numbers must be from 0 to 4294967295")
        parameters = parse(anatomy.Parameters, data)
    except StrictError as error:
        raise InputError(f"{path}: {error}", error.hint or _HINT) from error
    problem = out_of_range(parameters) or anatomy.unfit(parameters)
    if problem is not None:
        raise InputError(f"{path}: {problem}", "change it in that file")
    subject = Subject(head.anatomy, *head.speckle, path.stem, parameters)
    try:
        # A length of zero that nobody thought of shows in a division.
        hint = "look for lengths of zero, and for points that coincide"
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            problem = _why_not(subject.body, frames)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        problem = f"nothing can be computed with these parameters ({error})"
        raise InputError(f"{path}: {problem}", hint) from error
    if problem is not None:
        hint = "move what is named, make the manoeuvre smaller, or widen the probe's sector"
        raise InputError(f"{path}: {problem}", hint)
    return subject


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        fault = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {fault}", "check the path after --subject")
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise InputError(f"{path} is larger than 1 MiB: no subject is", _HINT)
        data = json.loads(text)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply", _HINT) from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", _HINT) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a subject: it must hold a JSON object", _HINT)
    return data


def _why_not(body: Body, frames: int) -> str | None:
    """Why a body cannot be rendered; None if it can."""
    for count in (frames, CHECKED_STATES):
        states = body.states(count)
        if (problem := body.why_impossible(states)) is not None:
            return f"{problem} of {count}"
    if np.abs(states[0]).max() > 1e-9:
        return "the first frame is not the rest pose"
    for number, state in enumerate(progress(states, label="checking the manoeuvre")):
        if not (error := body.map_error(state)) <= _MOST_ERROR:
            return (
                f"the tissue would be torn in frame {number} of {CHECKED_STATES}: its motion is "
                f"off by {error:.2f} pixels"
            )
    probe = body.probe
    low, high = np.array([-probe.width / 2, probe.top]), np.array([probe.width / 2, probe.depth])
    tissue = body.tissue(Grid.over(low, high, _TRIAL))
    if not (np.isfinite(tissue.echo).all() and np.isfinite(tissue.loss).all()):
        return "its tissue cannot be painted"
    return None
