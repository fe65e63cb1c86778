"""Which split is evaluated, and whether the model was trained on it."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.support.printable import printable
from ..checkpoint import record, recorded
from ..data.dataset import Clip
from .candidate import Candidate

TEST, ALL = "test", "all"
NO_TEST = (
    "the data has no split named test, so all clips are evaluated, possibly including clips that "
    "the model was trained on"
)


def split_to_read(there: Collection[str], warnings: list[str]) -> str:
    """The split to read by default: test if there is one, else all, with a warning."""
    if TEST not in there:
        warnings.append(NO_TEST)
    return TEST if TEST in there else ALL


def training_facts(
    candidate: Candidate, folders: Sequence[Path], clips: Sequence[Clip]
) -> tuple[dict[str, str], list[str]]:
    """What the model was trained on, and how much of that is evaluated; printed to stderr too.

    Returns:
        facts for the report; warnings about evaluated clips and subjects that it was trained on.
    """
    data, warnings = candidate.data, []
    facts = {"trained_on": ", ".join(map(_described, data)) or "not recorded"}
    print(f"the model was trained on: {facts['trained_on']}", file=sys.stderr)
    unknown = [_name(entry) for entry in data if "clips" not in entry]
    trained, evaluated = recorded(data), recorded(record(folders, clips))
    for what, known, names in zip(trained._fields, trained, evaluated, strict=True):
        both = sum(any(_same(name, other) for other in known) for name in names)
        count = f"{both} of {len(names)}"
        said = f"{count}, by name"
        if both:
            named = "are named like one that the model was trained on"
            warnings.append(f"{count} evaluated {what} {named}")
        if len(unknown) == len(data):
            bundle = candidate.facts["kind"] == "bundle"
            said = "a bundle does not record its training clips" if bundle else "not recorded"
        elif unknown:
            said += f", not recorded for {', '.join(unknown)}"
        facts[f"evaluated_{what}_trained_on"] = said
        print(f"evaluated {what} that it was trained on: {said}", file=sys.stderr)
    return facts, warnings


def _same(name: str, other: str) -> bool:
    """Whether two clips may be the same: one may be named from a folder further up."""
    return f"/{name}".endswith(f"/{other}") or f"/{other}".endswith(f"/{name}")


def _described(entry: Mapping[str, Any]) -> str:
    clips, subjects = recorded([entry])
    counts = f" ({len(clips)} clips of {len(subjects)} subjects)" if "clips" in entry else ""
    return _name(entry) + counts


def _name(entry: Mapping[str, Any]) -> str:
    return printable(str(entry.get("name", "?")))
