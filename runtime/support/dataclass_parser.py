"""Turn plain data (from JSON or TOML) into frozen dataclasses, strictly.

Every key must be a field, and every field without a default must be given. A value must have
exactly the field's type, but an integer passes for a float. The error for an unknown key names the
nearest field. Fields named after Python keywords have a trailing underscore (`from_`), keys do not.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class StrictError(ValueError):
    """Data that does not fit; `where` is the path of the value, such as `stages[2].inputs[0]`."""

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}" if where else problem)
        self.where = where
        self.hint = hint


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name nearest to `name`, or None when none is near."""
    found = difflib.get_close_matches(name[:100], list(known), n=1, cutoff=0.5)
    return found[0] if found else None


@functools.cache
def _fields(cls: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(cls)
    return {f.name.rstrip("_"): (f, hints[f.name]) for f in dataclasses.fields(cls)}


def parse(cls: type[T], data: object, where: str = "") -> T:
    """Make an instance of the dataclass `cls` from plain data.

    Raises:
        StrictError: naming the first value that does not fit.
    """
    if not isinstance(data, Mapping):
        raise StrictError(where, f"expected a table, found {_kind(data)}")
    fields = _fields(cast(Any, cls))  # mypy does not know that a type is hashable
    for key in data:
        if key not in fields:
            close = nearest(str(key), fields)
            hint = f"did you mean {close!r}?" if close else "known: " + ", ".join(fields)
            raise StrictError(where, f"unknown key {str(key)[:100]!r}", hint)
    values: dict[str, Any] = {}
    for key, (field, hint_type) in fields.items():
        if key in data:
            values[field.name] = _value(hint_type, data[key], f"{where}.{key}" if where else key)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise StrictError(where, f"missing key {key!r}")
    return cls(**values)


def plain(value: Any) -> Any:
    """The reverse of `parse`: dataclasses to dicts, tuples to lists; None stays."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = _fields(type(value))
        return {key: plain(getattr(value, field.name)) for key, (field, _) in fields.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return value


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    names = {dict: "a table", list: "a list", str: "text", bool: "a truth value"}
    return names.get(type(value), f"{str(value)[:40]!r}")


def _value(expected: Any, data: object, where: str) -> Any:
    origin, args = get_origin(expected), get_args(expected)
    if origin in (Union, types.UnionType):
        if data is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        if len(kinds) > 1 and isinstance(data, Mapping):  # the table with the most of these keys
            kinds.sort(key=lambda kind: len(_fields(kind).keys() & data.keys()))
        return _value(kinds[-1], data, where)
    if origin is Literal:
        if (type(data), data) in [(type(choice), choice) for choice in args]:  # True == 1
            return data
        raise StrictError(where, f"expected {' or '.join(map(repr, args))}, found {_kind(data)}")
    if origin is tuple:
        if not isinstance(data, list | tuple):
            raise StrictError(where, f"expected a list, found {_kind(data)}")
        if args[-1] is Ellipsis:
            args = args[:1] * len(data)
        if len(data) != len(args):
            raise StrictError(where, f"expected {len(args)} values, found {len(data)}")
        return tuple(_value(args[i], item, f"{where}[{i}]") for i, item in enumerate(data))
    if dataclasses.is_dataclass(expected) and isinstance(expected, type):
        return parse(expected, data, where)
    if expected is float and type(data) is int and abs(data) < 2**53:
        return float(data)
    if type(data) is not expected:
        words = {str: "text", int: "an integer", float: "a number", bool: "true or false"}
        raise StrictError(where, f"expected {words[expected]}, found {_kind(data)}")
    if isinstance(data, float) and not math.isfinite(data):
        raise StrictError(where, "expected a finite number")
    return data
