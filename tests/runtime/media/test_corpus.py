"""What is read from files of many kinds: frames, sizes, grey levels, times, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import clips, folders, stills  # noqa: F401 - they fill CASES
from corpus.case import CASES, Case

from sonomime.runtime.media.video import open_source
from sonomime.runtime.support.errors import InputError

# One line for each thing that is to be put right.
_WRONG = """
8 in 16.png | 10 in 16.png | 12 in 16.png | 14 in 16.png | 8 in 16.tif | 10 in 16.tif | 12 in 16.tif
14 in 16.tif | 12 in 16, pages.tif | 12 in 16 | 12 in 16, colour.png | 12 in 16, colour.tif
8 in 16.mkv | 10 in 16.mkv | 12 in 16.mkv | 14 in 16.mkv
sBIT 8, no shift.png | sBIT 10, no shift.png | sBIT 12, no shift.png
float.tif | double.tif | int32.tif | uint32.tif | int16.tif
inverted, 8 in 16.tif | inverted, 10 in 16.tif | inverted, 12 in 16.tif | inverted, 14 in 16.tif
2 to 1.mp4 | 1 to 2.mkv | NTSC.mp4 | PAL.mp4 | PAL.mpg | NTSC.mpg | turned, 2 to 1.mp4
pages.tif | pages, thumbnails.tif
animated.png
animated.webp | animated, lossy.webp
with times
fps given | pages, fps given.tif
f001 and f001_mask | f001 and f001_gt | f001 and f001-label | f_001 and f_001_gt | masks first
two series | a logo | a thumbnail of that size
transparent, RGBA.png | transparent, LA.png | transparent, P.png
alpha alone, white.png | alpha alone, black.png
120 fps.mkv | 5000 fps.mkv | b-frames, h264.avi
hurt.avi | hurt.mp4 | hurt.ts | hurt.mpg | hurt, mpeg4.mp4 | hurt, ffv1.mkv | hurt, prores.mov
hurt, png.mov | cut.ts | cut.mpg
lossy.webp | lossless.webp
a.jp2 | lossy.j2k
a.pgm | a.ppm | ascii.pgm | 16 bits.pgm | maximum 1023.pgm
"""
WRONG = {name for line in _WRONG.split("\n") for name in line.split(" | ") if name}
"""What is not read rightly yet."""


# The one place that knows how options are given.
def opened(path: Path, case: Case) -> Any:
    return open_source(path, **case.how, channels=case.channels)


def levels(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The mean of the inner half of every tile."""
    height, width = image.shape[0] / rows, image.shape[1] / columns
    return np.array([[
        image[round((y + 0.25) * height) : round((y + 0.75) * height),
              round((x + 0.25) * width) : round((x + 0.75) * width)].mean((0, 1))
        for x in range(columns)] for y in range(rows)])  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(name in WRONG, reason="later", strict=True))
        for name in CASES
    ],
)
def test_it_is_read_rightly(name: str, tmp_path: Path) -> None:
    assert CASES.keys() >= WRONG
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
