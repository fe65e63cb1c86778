"""Settings as they are written down: ``--set section.key=value``, and for which family."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
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


def refuse_other_families(
    table: Mapping[str, Any], section: Any, family: str, where: str = ""
) -> None:
    """Refuse what is written down and would do nothing, for it belongs to another family.

    Args:
        table: as written. section: the dataclass made of it; `where` is its name, with a dot.

    Raises:
        ConfigError: naming the setting.
    """
    for known in (f for f in dataclasses.fields(section) if f.name in table):
        value, name = getattr(section, known.name), f"{where}{known.name}"
        owner = known.metadata.get("family", family)
        if owner != family:
            raise ConfigError(
                f"{name} is a setting of the family {owner!r}, this model's is {family!r}",
                "take it out; a model's family is model.family",
            )
        if dataclasses.is_dataclass(value):
            refuse_other_families(table[known.name], value, family, f"{name}.")
