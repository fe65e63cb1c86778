"""The ultrasound picture is found on screens of many kinds, in clips and in stills."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from media_files import noise
from screens import HEIGHT, SCREENS, WIDTH, clip, names_beside_sector, sector, tissue

from sonomime.benchmarks.region import overlap
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.region import find_region
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import InputError, UnsupportedFormat

SECTORS = {
    "dark_panel_on_grey", "two_sectors", "doppler", "ecg", "ruler", "names_beside_sector", "lossy",
    "title",
}  # fmt: skip


@pytest.mark.parametrize("name", SCREENS)
def test_screens(name: str) -> None:
    frames, box = SCREENS[name]()
    still = [frames[5:6]] if name != "noisy" else []  # in a still, noise looks like speckle
    for given in (frames, *still):
        region = find_region(given)
        assert overlap(region.box, box) > 0.93
        assert region.shape == ("sector" if name in SECTORS else "rectangle")
        assert Crop(*cv2.boundingRect(region.outline)) == region.box
        assert region.share == region.mask(HEIGHT, WIDTH).mean()
        assert region.uncropped == (name not in ("bars", "header"))


def test_cropped_pictures_are_whole() -> None:
    frames = tissue("lung", 300, 260)
    for given in (frames, frames[:1], [frame[..., None].repeat(3, 2) for frame in frames]):
        region = find_region(given)
        assert region.box == (0, 0, 300, 260) and region.shape == "rectangle"
        assert (region.share, region.clutter, region.uncropped) == (1, 0, False)
    resting = find_region(tissue("driving", 300, 260))  # at the top, near the probe
    assert resting.box.h > 250 and not resting.uncropped


def test_black_corners_and_a_line_around_the_frame_are_no_clutter() -> None:
    frames, box = sector(clip(), (480, 20), 40, 660, 40)
    for frame in frames:
        cv2.rectangle(frame, (0, 0), (WIDTH - 1, HEIGHT - 1), (200, 200, 200), 1)
    region = find_region(frames)
    assert overlap(region.box, box) > 0.93 and 0.4 < region.share < 0.5
    assert (region.clutter, region.uncropped) == (0, False)


@pytest.mark.parametrize("shape", [(480, 640), (8, 8), (1, 40), (2000, 9, 3)])
@pytest.mark.parametrize("level", [0, 200])
@pytest.mark.parametrize("count", [1, 9])
def test_the_frame_is_whole_if_nothing_is_found(
    shape: tuple[int, ...], level: int, count: int
) -> None:
    region = find_region([np.full(shape, level, np.uint8)] * count)
    assert region.box == (0, 0, shape[1], shape[0])
    assert (region.share, region.clutter, region.uncropped) == (1, 0, False)


def test_a_clock_on_an_empty_screen_is_no_picture() -> None:
    frames = [np.zeros((480, 640), np.uint8) for _ in range(9)]
    for frame, digits in zip(frames, range(9), strict=True):
        cv2.putText(frame, f"10:42:0{digits}", (20, 60), 0, 1.0, (255,), 2)
    assert find_region(frames).box == (0, 0, 640, 480)


def test_names_lie_outside_of_the_mask_and_tissue_inside() -> None:
    frames, box = names_beside_sector()
    mask = find_region(frames).mask(HEIGHT, WIDTH)
    bare = sector([np.zeros_like(frame) for frame in frames], (480, 20), 40, 660, 40)[0]
    text = (frames[3] != bare[3]).any(2)
    assert text[box.y : box.y + box.h, box.x : box.x + box.w].sum() > 1000
    assert not (text & mask).any()
    picture = np.max(bare, axis=(0, 3)) > 0
    assert (picture & mask).sum() > 0.96 * picture.sum()


def test_frames_of_one_size_are_needed() -> None:
    for frames in ([], [noise(60, 80), noise(80, 60)], [noise(60, 80).astype(float)]):
        with pytest.raises(InputError):
            find_region(frames)


@pytest.mark.slow
def test_real_clips(shared_data: Path) -> None:
    with (shared_data / "test" / "MANIFEST.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    found = []
    for row in rows:
        try:
            source = open_source(shared_data / "test" / row["local"])
        except UnsupportedFormat:
            continue
        frames = [frame.image for frame in islice(source, 32)]
        wanted = row["roi_xywh"]
        box = Crop(0, 0, *source.size) if wanted == "full" else Crop(*map(int, wanted.split()))
        found.append(overlap(find_region(frames).box, box) >= 0.9)
    assert len(found) >= 25 and found.count(False) <= 2
