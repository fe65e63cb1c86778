"""A subject's parameters as a file: written for each subject, read back when somebody edits one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.support.dataclass_parser import StrictError, nearest, parse, plain
from ...runtime.support.errors import InputError
from ...runtime.support.progress import progress
from .anatomies import ANATOMIES
from .anatomy import Body, map_error, why_impossible
from .subject import CHECKED_STATES, Identity, Subject
from .tissue_map import Grid

_LARGEST = 1 << 20  # bytes
_MOST_ERROR = 0.25  # pixels by which the map of a state may fail
_TRIAL = 3.0  # mm, raster on which the tissue is painted for a trial
_HINT = "subjects/NAME.json of any phantom folder shows how it has to look"
_SMALLER = "move what is named, make the manoeuvre smaller, or widen the probe's sector"


def subject_text(subject: Subject) -> str:
    """What a subject's file holds."""
    identity = subject.identity
    head = {"anatomy": identity.anatomy, "speckle": [identity.seed, identity.number]}
    return json.dumps({**head, **plain(subject.parameters)}, indent=2) + "\n"


def read_subject(path: Path, frames: int) -> Subject:
    """Read a subject's file, and see that the subject can be rendered in so many frames.

    Raises:
        InputError: naming the file and what in it is at fault: it cannot be read, it has an unknown
            or a missing parameter or one of the wrong type, or nobody can be made like that.
    """
    data = _read(path)
    if not re.fullmatch(r"\w[\w. -]*", path.stem):
        raise InputError(
            f"{path}: its name would be the clip's", "call it with letters, digits, _, . and -"
        )
    name, identity = data.pop("anatomy", None), data.pop("speckle", None)
    if not isinstance(name, str) or name not in ANATOMIES:
        close = nearest(name, ANATOMIES) if isinstance(name, str) else None
        known = f"did you mean {close!r}?" if close else f"known: {', '.join(ANATOMIES)}"
        raise InputError(f"{path}: anatomy is {name!r}", known)
    if not _is_speckle(identity):
        raise InputError(
            f"{path}: speckle is {identity!r}", "two whole numbers from 0 on, as in [7, 3]"
        )
    anatomy = ANATOMIES[name]
    try:
        parameters = parse(anatomy.parameters, data)
    except StrictError as error:
        raise InputError(f"{path}: {error}", error.hint or _HINT) from error
    problem = (
        parameters.probe.impossible()
        or parameters.display.impossible()
        or anatomy.unfit(parameters)
    )
    if problem is not None:
        raise InputError(f"{path}: {problem}", "change it in that file")
    subject = Subject(path.stem, Identity(name, *identity), parameters)
    try:
        # A length of zero that nobody thought of shows in a division.
        with np.errstate(divide="raise", invalid="raise", over="raise"):
            problem = _why_not(subject.body, frames)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        raise InputError(
            f"{path}: nothing can be computed with these parameters ({error})",
            "look for lengths of zero, and for points that fall on one another",
        ) from error
    if problem is not None:
        raise InputError(f"{path}: {problem}", _SMALLER)
    return subject


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        reason = "is not a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {reason}", "check the path after --subject")
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is no subject: it is larger than 1 MiB", _HINT)
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", _HINT) from error
    if not isinstance(data, dict):
        raise InputError(f"{path} is no subject: it holds no table", _HINT)
    return data


def _is_speckle(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) is int and 0 <= number < 2**32 for number in value)
    )


def _why_not(body: Body, frames: int) -> str | None:
    if (problem := why_impossible(body, body.states(frames))) is not None:
        return problem
    states = body.states(CHECKED_STATES)
    if (problem := why_impossible(body, states)) is not None:
        return f"{problem} of {CHECKED_STATES}"
    if np.abs(states[0]).max() > 1e-9:
        return "the first frame is not the rest pose"
    for number, state in enumerate(progress(states, len(states), "trying the manoeuvre")):
        if not (error := map_error(body, state)) <= _MOST_ERROR:
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
