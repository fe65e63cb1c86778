"""JSON of other tools: read within bounds, every fault with its path in the file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...runtime.support.errors import InputError
from ...runtime.support.printable import printable

_HINT = "the format may be another one: see --format and docs/labels.md"


class Node:
    """A value of a JSON file, which knows where it is."""

    def __init__(self, file: Path, value: Any, path: str = "") -> None:
        self.file, self.value, self.path = file, value, path

    @property
    def where(self) -> str:
        """File and path in words."""
        return f"{self.file}: {printable(self.path[-200:])}" if self.path else str(self.file)

    def error(self, fault: str, hint: str = _HINT) -> InputError:
        """An error about this value."""
        return InputError(f"{self.where} {fault}", hint)

    def __contains__(self, key: str) -> bool:
        """Whether it is a table that has a value, not null, for a key."""
        return isinstance(self.value, dict) and self.value.get(key) is not None

    def at(self, key: str) -> Node:
        """The value for a key, which has to be there."""
        if key not in self:
            raise self.error(f"has no {key!r}")
        return self._below(key)

    def items(self) -> Iterator[tuple[str, Node]]:
        """Keys and values of a table."""
        if not isinstance(self.value, dict):
            raise self.error(f"is {_kind(self.value)} where a table is expected")
        for key in self.value:
            yield key, self._below(key)

    def list(self, key: str | None = None) -> list[Node]:
        """The values of a list; or those of a key, none where it is missing or null."""
        if key is not None:
            return self._below(key).list() if key in self else []
        if not isinstance(self.value, list):
            raise self.error(f"is {_kind(self.value)} where a list is expected")
        return [Node(self.file, v, f"{self.path}[{i}]") for i, v in enumerate(self.value)]

    def number(self) -> float:
        """A finite number."""
        if type(self.value) in (int, float) and abs(self.value) < 1e9:  # beyond: no pixel
            return float(self.value)
        raise self.error(f"is {_kind(self.value)} where a number is expected")

    def whole(self) -> int:
        """An integer from 0, also as text or as 3.0."""
        value = self.value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
        if type(value) in (int, float) and 0 <= value < 1e9 and value == math.floor(value):
            return int(value)
        raise self.error(f"is {_kind(self.value)} where a number from 0 is expected")

    def text(self) -> str:
        """A text."""
        if isinstance(self.value, str):
            return self.value
        raise self.error(f"is {_kind(self.value)} where text is expected")

    def point(self) -> tuple[float, float]:
        """The first two of two or three numbers."""
        numbers = self.list()
        if len(numbers) not in (2, 3):
            raise self.error(f"has {len(numbers)} values where x, y are expected")
        return numbers[0].number(), numbers[1].number()

    def _below(self, key: str) -> Node:
        return Node(self.file, self.value[key], f"{self.path}.{key}" if self.path else key)


def parse_json(file: Path, data: bytes) -> Node:
    """The root of a JSON file.

    Raises:
        InputError: naming the line: it is no JSON, is nested too deeply, has not-a-number or a key
            twice, which would hide a value.
    """

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in made if keys.count(key) > 1)
            raise InputError(f"{file}: the key {twice[:80]!r} is there twice", "keep one of them")
        return made

    def constant(name: str) -> float:
        raise InputError(f"{file}: holds {name}, which is no number of JSON", "remove that point")

    hint = "export it again from the annotation tool"
    try:
        text = data.decode("utf-8-sig")
        root = json.loads(text, object_pairs_hook=table, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{error.lineno}: not JSON ({error.msg})", hint) from error
    except ValueError as error:  # not UTF-8, a number of thousands of digits
        raise InputError(f"{file}: not JSON ({error})", hint) from error
    except RecursionError:
        raise InputError(f"{file}: nested too deeply", hint) from None
    return Node(file, root)


def _kind(value: Any) -> str:
    names = {dict: "a table", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value)) or repr(value)[:40]
