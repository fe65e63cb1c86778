"""The files of a study: study.json, which says what the raters see, and the sealed key.

A study's folder holds ``study.json``, ``clips/NAME.mp4`` with opaque names, ``answers/RATER.csv``
and ``key.json``. Only the key says which clip belongs to which arm, and only
the report reads it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...runtime.support.atomic_files import atomic_write_text
from ...runtime.support.dataclass_parser import StrictError, parse, plain
from ...runtime.support.errors import InputError

T = TypeVar("T")
FORMAT = 1
SCALE = (1, 2, 3, 4, 5)
"""The ratings that can be given, worst first (Likert)."""
REAL = "real"
"""The name of the arm that is real, where raters are asked whether a clip is."""
NAME_RULE = "1 to 40 letters, digits, - or _, not - or _ first"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
_OPAQUE = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Study:
    """What the page may know.

    Attributes:
        question: what is asked about each clip.
        real_or_fake: whether it is asked too if the clip is real.
        orders: for each rater the clips in the order of showing; a clip that is there twice is a
            hidden repeat.
        key_sha256: digest of the key's file, in hexadecimal.
    """

    question: str
    real_or_fake: bool
    orders: tuple[tuple[str, ...], ...]
    key_sha256: str
    format: int = FORMAT


@dataclass(frozen=True)
class Coded:
    """What a clip is: its arm, its case (the same one in every arm, if `Key.matched`), its file."""

    clip: str
    arm: str
    case: str
    source: str


@dataclass(frozen=True)
class Key:
    """Which clip is what; `arms` in the order in which they were given."""

    arms: tuple[str, ...]
    matched: bool
    seed: int
    clips: tuple[Coded, ...]
    format: int = FORMAT


def is_name(text: str) -> bool:
    """Whether an arm or a rater may be called that: it becomes a part of file names."""
    return bool(_NAME.fullmatch(text))


def clip_file(folder: Path, clip: str) -> Path:
    """The file of a clip."""
    return folder / "clips" / f"{clip}.mp4"


def write_study(
    folder: Path, key: Key, question: str, real_or_fake: bool, orders: Sequence[Sequence[str]]
) -> None:
    """Write study.json and key.json, which only its owner may read."""
    path = folder / "key.json"
    atomic_write_text(path, json.dumps(plain(key), indent=1) + "\n")
    path.chmod(0o600)
    study = {
        "format": FORMAT,
        "question": question,
        "real_or_fake": real_or_fake,
        "key_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "orders": orders,
    }
    atomic_write_text(folder / "study.json", json.dumps(study) + "\n")


def read_study(folder: Path) -> Study:
    """The study in a folder; the key is not touched.

    Raises:
        InputError: there is none, or study.json is damaged.
    """
    path = folder / "study.json"
    if not path.is_file():
        hint = "name a folder that `sonomime study make` has made"
        raise InputError(f"{folder} holds no study: {path} is missing", hint)
    study = _read(Study, path, path.read_bytes())
    first = set(study.orders[0]) if study.orders else set()
    if not first or any(set(order) != first for order in study.orders):
        raise InputError(f"{path}: its orders do not show the same clips", "make the study again")
    if wrong := [clip for clip in first if not _OPAQUE.fullmatch(clip)]:
        raise InputError(f"{path}: {wrong[0][:40]!r} is no clip's name", "make the study again")
    return study


def read_key(path: Path, study: Study) -> Key:
    """The key of a study.

    Raises:
        InputError: it is missing, was changed since the study was made, or belongs to another one.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        hint = "the report needs the key that `sonomime study make` wrote; --key says where it is"
        raise InputError(f"cannot read the key {path}: {error.strerror}", hint) from error
    if (found := hashlib.sha256(data).hexdigest()) != study.key_sha256:
        raise InputError(
            f"{path} is not the key that this study was made with: its SHA-256 begins with "
            f"{found[:12]}, not {study.key_sha256[:12]}",
            "it was changed, or belongs to another study: bring back the original file",
        )
    key = _read(Key, path, data)
    if {coded.clip for coded in key.clips} != set(study.orders[0]):
        raise InputError(f"{path}: it names other clips than study.json", "make the study again")
    return key


def _read(kind: type[T], path: Path, data: bytes) -> T:
    try:
        read = json.loads(data)
        if isinstance(read, dict) and read.get("format") != FORMAT:
            fault = f"{path}: its format is {str(read.get('format'))[:20]}, not {FORMAT}"
            raise InputError(fault, "use the version of sonomime that made the study")
        return parse(kind, read)
    except (StrictError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}", "make the study again") from error
