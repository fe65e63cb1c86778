"""What is read from files of many kinds: frames, sizes, grey levels, times, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import clips, folders, stills  # noqa: F401 - they fill CASES
from corpus.case import CASES, Case

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import InputError


# The one place that knows how options are given.
def opened(path: Path, case: Case) -> Any:
    return open_source(path, Reading(**case.how), case.channels)


def levels(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mean of the inner half of every tile."""
    height, width = image.shape[0] / rows, image.shape[1] / columns
    return np.array([[
        image[round((y + 0.25) * height) : round((y + 0.75) * height),
              round((x + 0.25) * width) : round((x + 0.75) * width)].mean((0, 1))
        for x in range(columns)] for y in range(rows)])  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_read_rightly(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.write(tmp_path / name)
    if case.refused:
        with pytest.raises(InputError):
            list(opened(tmp_path / name, case))
        return
    source = opened(tmp_path / name, case)
    frames = list(source)
    assert source.size == case.size
    whole = len(case.levels) if case.count is None else case.count
    assert len(frames) == whole or (case.damaged and case.count is None)
    for frame, right in zip(frames, case.levels, strict=False):
        assert frame.image.dtype == np.uint8
        assert frame.image.shape[:2] == case.size[::-1]
        found = levels(frame.image, *right.shape[:2])
        assert found.shape == right.shape and np.abs(found - right).max() <= case.off, found
    if case.times is not None:
        assert np.allclose([frame.timestamp for frame in frames], case.times, 0, case.close)
    if case.damaged is not None:
        assert (getattr(source, "damage", None) is not None) == case.damaged
