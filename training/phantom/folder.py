"""A phantom's folder: whose it is, that only one writes there, and that each file is whole."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text
from ...runtime.support.errors import ConfigError, OutputError, output_errors

_PARTS = ("clips", "displacement", "subjects", "truth")


def refuse_other(folder: Path, settings: Mapping[str, Any]) -> None:
    """Nothing, where the folder is new or holds what is made with these settings.

    Raises:
        ConfigError: it holds another phantom, or a damaged ``phantom.json``.
        OutputError: it is a file, or a folder of something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write the folder {folder}: there is a file of that name",
            "choose another name with -o",
        )
    path = folder / "phantom.json"
    if not path.exists():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(
                f"the folder {folder} holds something that is no phantom",
                "choose another name with -o",
            )
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})", "choose another name with -o") from error
    if not isinstance(there, dict):
        raise ConfigError(f"{path} is damaged", "choose another name with -o")
    if other := _differences(_flat(there), _flat(settings)):
        raise ConfigError(
            f"{folder} holds another phantom: {other}",
            "give the same options to go on with it, or choose another name with -o",
        )


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Say in ``phantom.json`` what the folder is for.

    Raises:
        ConfigError, OutputError: as :func:`refuse_other`; it cannot be written.
    """
    refuse_other(folder, settings)
    path = folder / "phantom.json"
    if not path.exists():
        atomic_write_text(path, json.dumps(settings, indent=2) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else writes to the folder meanwhile; what a killed run left half-written is removed,
    before and after. A folder that is not there is made.

    Raises:
        OutputError: somebody else does; it cannot be made.
    """
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"{folder}: another sonomime is writing there",
                "wait until it is done, or choose another name with -o",
            ) from None
        except OSError:
            pass  # a file system without locks
        _sweep(folder)
        try:
            yield
        finally:
            _sweep(folder)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    for place in (folder, *(folder / name for name in _PARTS)):
        for path in place.glob(".*.part*"):
            with suppress(OSError):
                path.unlink()


def _flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """What is there and what was asked for, where they differ; "" where they do not."""
    return "; ".join(
        f"{key} {_told(there, key)}, not {_told(asked, key)}"
        for key in dict.fromkeys([*there, *asked])
        if key not in there or key not in asked or there[key] != asked[key]
    )


def _told(settings: Mapping[str, Any], key: str) -> str:
    return str(settings[key])[:80] if key in settings else "(none)"
