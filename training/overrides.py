"""Settings from the command line: ``--set section.key=value``."""

from __future__ import annotations

import tomllib
from typing import Any

from ..runtime.support.errors import ConfigError


def apply_override(table: dict[str, Any], override: str) -> None:
    """Put the value of ``section.key=value`` into nested tables, in place.

    Raises:
        ConfigError: it is not of that form, or its section is a value.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {override!r} is not KEY=VALUE", "write e.g. --set train.max_steps=1000"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"--set {override!r}: {section!r} is not a section", "see docs/training.md"
            )
    table[last] = value
