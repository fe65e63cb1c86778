"""What an input is read as, in words and on a contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from media_files import LEVELS, noise

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.inspection import inspect
from sonomime.runtime.readers.reading import AS_IS, Reading
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.support.errors import ConfigError

MakeVideo = Callable[..., Path]


def test_every_frame_is_counted_and_some_are_drawn(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(
        tmp_path / "a.mkv", [noise(64, 96, seed=i) for i in range(61)], "ffv1", "gray"
    )
    found = inspect(path, Reading(Crop(8, 16, 40, 32)), tmp_path / "sheet.png")
    assert (found.frames, found.facts.frames, found.damage) == (61, 61, None)
    assert found.seconds == pytest.approx(60 / 25, abs=0.001)
    assert found.facts.region == Crop(8, 16, 40, 32) and found.facts.stored == (96, 64)
    sheet = read_image(tmp_path / "sheet.png")
    width = 320
    assert sheet.shape[1] == 4 * (width + 4) and sheet.ndim == 3
    line = (sheet == (255, 200, 0)).all(2)
    assert line[:, :width].any(0)[[26, 156]].all(), "the region, scaled"
    assert not line[:, :20].any()


def test_a_cut_clip_and_a_still(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mkv", [LEVELS] * 20, "ffv1", "gray")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    found = inspect(path, AS_IS)
    assert found.damage is not None and 0 < found.damage.frame == found.frames < 20
    from PIL import Image

    Image.fromarray(np.dstack([LEVELS, 0 * LEVELS, LEVELS])).save(tmp_path / "a.png")
    found = inspect(tmp_path / "a.png", AS_IS)
    assert (found.frames, found.seconds, found.facts.colour) == (1, 0.0, True)
    assert len(found.lines()) == 4
    with pytest.raises(ConfigError):
        inspect(path, AS_IS, tmp_path / "sheet.jpg")
