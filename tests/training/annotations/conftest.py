"""A folder of clips that are labelled nowhere yet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_files import SIZE

from sonomime.runtime.sinks.open_sink import open_sink


def pictures(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, SIZE[1], SIZE[0])
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A video a.mkv of four frames, folders b and c of three."""
    from fractions import Fraction

    root = tmp_path / "data"
    root.mkdir()
    with open_sink(root / "a.mkv", SIZE, 1, Fraction(25), {}) as sink:
        for image in pictures(4):
            sink.write(image)
    for folder, seed in (("b", 1), ("c", 2)):
        (root / folder).mkdir()
        for i, image in enumerate(pictures(3, seed)):
            cv2.imwrite(str(root / folder / f"{'' if folder == 'b' else 'c'}{i}.png"), image)
    return root
