"""A phantom's folder: what it is for, and that only one process writes there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ...runtime.support.atomic_files import atomic_write_text, locked
from ...runtime.support.errors import ConfigError, OutputError

_PARTS = ("clips", "displacement", "subjects", "truth")
_ELSEWHERE = "choose another name with -o"


def refuse_other(folder: Path, settings: Mapping[str, Any]) -> None:
    """Do nothing if the folder is new or holds what is made with these settings.

    Raises:
        ConfigError: it holds another phantom, or a damaged ``phantom.json``.
        OutputError: it is a file, or a folder of something else.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write the folder {folder}: it is a file", _ELSEWHERE)
    path = folder / "phantom.json"
    if not path.exists():
        if folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise OutputError(f"the folder {folder} holds something else", _ELSEWHERE)
        return
    try:
        there = _flat(json.loads(path.read_text(encoding="utf-8")))
        asked = _flat(json.loads(json.dumps(settings)))
        other = [
            f"{key} {there.get(key, '(none)')}, not {asked.get(key, '(none)')}"[:200]
            for key in dict.fromkeys([*there, *asked])
            if key not in there or key not in asked or there[key] != asked[key]
        ]
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is damaged ({error})", _ELSEWHERE) from error
    except AttributeError as error:
        raise ConfigError(f"{path} is damaged (it holds no settings)", _ELSEWHERE) from error
    if other:
        raise ConfigError(
            f"{folder} holds another phantom: {'; '.join(other)}",
            f"give the same options to continue it, or {_ELSEWHERE}",
        )


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write into ``phantom.json`` what the folder is for.

    Raises:
        ConfigError, OutputError: as :func:`refuse_other`; it cannot be written.
    """
    refuse_other(folder, settings)
    path = folder / "phantom.json"
    if not path.exists():
        atomic_write_text(path, json.dumps(settings, indent=2) + "\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock the folder, which is made if need be. Files that a killed run left half-written are
    removed, before and after.

    Raises:
        OutputError: another process writes there; it cannot be made.
    """
    with locked(folder):
        _remove_half_written(folder)
        try:
            yield
        finally:
            _remove_half_written(folder)


def _remove_half_written(folder: Path) -> None:
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
