"""Windows, times, regions and spacing are those that a DICOM header states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import (
    GREY,
    NONSENSE,
    jpeg,
    levels,
    notes,
    region,
    scaled,
    times,
    write_dicom,
)
from media_files import apart

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import InputError

pydicom = pytest.importorskip("pydicom")

TWELVE = (np.arange(64 * 64).reshape(64, 64)).astype(np.uint16)  # 0 to 4095


@pytest.mark.parametrize(
    ("header", "low", "high", "noted"),
    [
        ({"WindowCenter": 2048, "WindowWidth": 1024}, 1536, 2559, ""),
        ({"WindowCenter": [2048, 9], "WindowWidth": [1024, 9]}, 1536, 2559, ""),
        ({"WindowCenter": 0, "WindowWidth": 201, "RescaleSlope": 2, "RescaleIntercept": -100},
         -0.25, 99.75, ""),
        ({"WindowCenter": 9, "WindowWidth": 4, "VOILUTFunction": "LINEAR_EXACT"}, 7, 11, ""),
        ({"WindowCenter": 9, "WindowWidth": 5, "VOILUTFunction": "SIGMOID"}, 6.5, 10.5, "SIGMOID"),
        ({"WindowCenter": 9, "WindowWidth": 0}, 0, 4095, "window"),
        ({"WindowCenter": NONSENSE, "WindowWidth": 5}, 0, 4095, "window"),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, 4095, 0, ""),
        ({"RescaleSlope": 0}, 0, 4095, "slope"),
    ],
)  # fmt: skip
def test_windows_and_rescaling_decide_what_is_black_and_white(
    tmp_path: Path, header: dict[str, Any], low: float, high: float, noted: str
) -> None:
    with pydicom.config.disable_value_validation():
        path = write_dicom(tmp_path / "a.dcm", [TWELVE], BitsStored=12, **header)
    assert apart(levels(path)[0], scaled(TWELVE, low, high)).max() == 0
    assert noted in notes(path) and bool(noted) == bool(notes(path))


# -- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected", "rate", "noted"),
    [
        ({}, [0, 0.04, 0.08], "FrameTime", ""),
        ({"FrameTime": "12.5", "FrameIncrementPointer": None}, [0, 0.0125, 0.025], "Time", ""),
        ({"FrameTimeVector": [0, 10, 25], "FrameIncrementPointer": 0x00181065},
         [0, 0.01, 0.035], "FrameTimeVector", ""),
        ({"FrameTimeVector": [0, 10, 25], "FrameTime": None}, [0, 0.01, 0.035], "Vector", ""),
        ({"FrameTimeVector": [0, 10, 25]}, [0, 0.04, 0.08], "FrameTime", ""),
        ({"FrameTimeVector": [0, 99, -9], "FrameIncrementPointer": None}, [0, 0.04, 0.08],
         "FrameTime", "FrameTimeVector"),
        ({"FrameTimeVector": [0, 10], "FrameIncrementPointer": 0x00181065},
         [0, 0.04, 0.08], "FrameTime", "FrameTimeVector"),
        ({"FrameTime": 0, "CineRate": 20}, [0, 0.05, 0.1], "CineRate", "FrameTime"),
        ({"FrameTime": NONSENSE, "RecommendedDisplayFrameRate": 50},
         [0, 0.02, 0.04], "Rate", "Time"),
        ({"FrameTime": None}, [0, 1 / 30, 1 / 15], "assumed", "--fps"),
        ({"FrameTime": -40, "CineRate": 0}, [0, 1 / 30, 1 / 15], "assumed", "CineRate"),
    ],
)  # fmt: skip
def test_times_are_those_of_the_header(
    tmp_path: Path, header: dict[str, Any], expected: list[float], rate: str, noted: str
) -> None:
    with pydicom.config.disable_value_validation():
        path = write_dicom(tmp_path / "a.dcm", [GREY] * 3, **header)
    assert np.allclose(times(path), expected, atol=1e-9)
    assert rate in open_source(path).facts.rate
    assert noted in notes(path) and bool(noted) == bool(notes(path))


# -- regions --------------------------------------------------------------------------------------


WIDE, TALL = region(8, 4, 55, 39), region(2, 10, 21, 59)
FLOW, SPECTRUM = region(10, 10, 19, 19, kind=2), region(0, 0, 63, 63, space=3, kind=3)


@pytest.mark.parametrize(
    ("regions", "asked", "crop", "noted"),
    [
        ([WIDE], None, Crop(8, 4, 48, 36), ""),
        ([FLOW, TALL, WIDE, SPECTRUM], None, Crop(8, 4, 48, 36), "3 other"),
        ([FLOW, TALL, WIDE], 1, Crop(2, 10, 20, 50), ""),
        ([region(0, 0, 59, 59, kind=2), TALL], None, Crop(2, 10, 20, 50), "another"),
        ([SPECTRUM, FLOW], None, Crop(10, 10, 10, 10), "another"),
        ([SPECTRUM], None, None, "B-mode"),
        ([SPECTRUM], 0, Crop(0, 0, 64, 64), ""),
        ([region(8, 4, 64, 39)], None, Crop(8, 4, 56, 36), "outside"),
        ([region(8, 4, 95, 39)], None, None, "fit"),  # of another picture
        ([region(8, 4, 7, 39)], None, None, "fit"),
        ([], None, None, ""),
    ],
)
def test_the_largest_b_mode_region_is_read_or_the_one_that_is_asked_for(
    tmp_path: Path, regions: list[Any], asked: int | None, crop: Crop | None, noted: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", [GREY], SequenceOfUltrasoundRegions=regions)
    source = open_source(path, Reading(region=asked))
    x, y, w, h = crop or (0, 0, 64, 64)
    assert source.crop == crop and source.facts.regions == len(regions)
    assert np.array_equal(next(iter(source)).image, GREY[y : y + h, x : x + w])
    assert source.facts.spacing == (None if crop is None else pytest.approx((0.2, 0.2)))
    assert noted in notes(path, region=asked) and bool(noted) == bool(source.facts.notes)
    for wrong in (-1, len(regions)):
        with pytest.raises(InputError, match=r"a\.dcm"):
            open_source(path, Reading(region=wrong))


def test_a_file_without_regions_has_none_to_ask_for(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(GREY))
    with pytest.raises(InputError, match=r"a\.jpg"):
        open_source(tmp_path / "a.jpg", Reading(region=0))


def test_spacing_and_aspect_come_from_what_there_is(tmp_path: Path) -> None:
    oblong = region(0, 0, 63, 31, PhysicalDeltaX=0.02, PhysicalDeltaY=-0.01)
    seconds = region(0, 0, 63, 31, PhysicalUnitsXDirection=4)
    for header, spacing, size in (
        ({"SequenceOfUltrasoundRegions": [oblong]}, (0.1, 0.1), (128, 32)),
        ({"SequenceOfUltrasoundRegions": [seconds]}, None, (64, 32)),
        ({"PixelSpacing": [0.5, 0.25]}, (0.25, 0.25), (64, 128)),
        ({"PixelAspectRatio": [1, 2]}, None, (128, 64)),
    ):
        source = open_source(write_dicom(tmp_path / "a.dcm", [GREY], **header))
        assert source.size == size
        assert source.facts.spacing == (spacing and pytest.approx(spacing))
