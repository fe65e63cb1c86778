"""What a model was trained on, as its checkpoint keeps it: data, subjects and clips by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .data.dataset import Clip


class Names(NamedTuple):
    """Names of clips (as in their folders) and of subjects."""

    clips: set[str]
    subjects: set[str]


def record(folders: Sequence[Path], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """For each folder given to :func:`find_clips` its ``name``, and of the clips used from it
    ``clips``: a list of names for each subject."""
    data = []
    for folder in folders:
        by_subject: dict[str, list[str]] = {}
        for clip in clips:
            if clip.path.is_relative_to(folder):
                # Not clip.name, which depends on what other folders were given.
                name = clip.path.relative_to(folder).as_posix()
                by_subject.setdefault(clip.subject, []).append(name if name != "." else clip.name)
        data.append({"name": folder.resolve().name, "clips": by_subject})
    return data


def recorded(data: Sequence[Mapping[str, Any]]) -> Names:
    """The names in such a record; entries without clips add none."""
    pairs = [item for entry in data for item in entry.get("clips", {}).items()]
    return Names({name for _, names in pairs for name in names}, {subject for subject, _ in pairs})
