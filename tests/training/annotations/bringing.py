"""Annotation files brought into a folder of clips."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotation_files import CLIP

from sonomime.runtime.support.errors import InputError
from sonomime.training.annotations.importing import Imported, Wish, import_annotations
from sonomime.training.data.dataset import find_clips

Labels = dict[int, dict[str, tuple[float, float]]]


def bring(data: Path, text: str, name: str = "file", **wish: Any) -> Imported:
    file = data.parent / name
    file.write_text(text)
    return import_annotations([file], data, Wish(**wish))


def labels(data: Path, clip: str = CLIP) -> Labels:
    """As training reads them."""
    return next(c for c in find_clips([data]).clips if c.name == clip).keypoints


def rows(data: Path) -> list[dict[str, str]]:
    with (data / "keypoints.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def refused(use: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        use()
    assert caught.value.hint
    assert [word for word in said if word not in caught.value.message + caught.value.hint] == []


IN_B = ("b/0.png", "b/2.png")
