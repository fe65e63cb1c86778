"""What all readers have in common, with a reader that yields what a test gives it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from media_files import noise

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.levels import Window, parse_window
from sonomime.runtime.readers.reading import AS_IS, Facts, Picture, Reading, parse_rate
from sonomime.runtime.readers.source import FrameSource
from sonomime.runtime.support.errors import ConfigError, InputError

GREY = [noise(40, 60, seed=seed) for seed in range(4)]


class Given(FrameSource):
    """Yields what it is given, arrays or faults, without times."""

    def __init__(
        self, pictures: Sequence[np.ndarray | str], how: Reading = AS_IS, channels: int = 1,
        **facts: Any,
    ) -> None:  # fmt: skip
        self.pictures, self.count_hint = pictures, len(pictures)
        self.stated = Fraction(10), "made up"
        self.named_region = facts.pop("named_region", None)
        super().__init__(Path("given"), how, channels, Facts("made up", **facts))

    def _pictures(self, channels: int) -> Iterator[Picture]:
        for each in self.pictures:
            yield Picture(None, None, each) if isinstance(each, str) else Picture(None, each)


def images(source: FrameSource) -> list[np.ndarray]:
    return [frame.image for frame in source]


def test_a_window_is_the_one_asked_for_or_that_of_the_first_frames() -> None:
    deep = [GREY[0].astype(np.uint16) * 4, GREY[1].astype(np.uint16) * 16]
    asked = Given(deep, Reading(window=Window(100, 355)))
    assert np.array_equal(images(asked)[0], np.clip(deep[0] - 100.0, 0, 255))
    assert asked.facts.notes == []
    found = Given(deep)
    assert np.array_equal(images(found)[1], np.rint(deep[1] * (255 / 4095)))
    assert len(found.facts.notes) == 1
    late = Given([deep[0]] * 8 + [deep[1]])
    assert np.array_equal(images(late)[0], np.rint(deep[0] * (255 / 1023)))
    assert images(late)[8].max() == 255 and len(late.facts.notes) == 2, "brighter than the first"
    negative = np.linspace(-100, 100, 64, dtype=np.float32).reshape(8, 8)
    darker = Given([negative] * 8 + [negative * 2])
    assert len(darker.facts.notes) == 1 and len(list(darker)) == 9
    assert len(darker.facts.notes) == 2, "values beyond the range"
    small = [np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8) for top in (0.5, 1, 0.25)]
    assert images(Given(small))[1].max() == 255 > images(Given(small))[0].max() > 120
    dark = Given([0 * deep[0]] * 12 + [deep[1]] * 2)
    assert np.array_equal(images(dark)[12], np.rint(deep[1] * (255 / 4095)))
    full = Given([np.array([[0, 65535]] * 8, np.uint16).repeat(8, 1)])
    assert full.facts.notes == [] and set(np.unique(images(full))) == {0, 255}
    nothing = Given([np.full((16, 16), np.nan, np.float32)])
    assert not images(nothing)[0].any() and len(nothing.facts.notes) == 2


def test_what_would_be_assumed_is_an_error_when_strict() -> None:
    for pictures, channels in (
        ([GREY[0].astype(np.uint16)], 1),  # the range
        ([np.zeros((16, 16), np.uint8)], 1),  # black
        ([np.dstack([GREY[0], 0 * GREY[0], 0 * GREY[0]])], 1),  # colours lost
    ):
        Given(pictures, channels=channels, colour=True)
        with pytest.raises(InputError, match="given"):
            Given(pictures, Reading(strict=True), channels, colour=True)
    assert Given(GREY, Reading(strict=True)).facts.notes == []
    colour = np.dstack(GREY[:3])
    assert Given([colour], Reading(strict=True), 3, colour=True).facts.notes == []


def test_damage_ends_a_clip_or_is_left_out_or_is_an_error() -> None:
    mixed = [GREY[0], GREY[1].astype(np.uint16), GREY[2]]
    assert [frame.index for frame in Given(mixed, Reading(on_damage="skip"))] == [0, 2]
    pictures = [GREY[0], "is damaged", GREY[1], noise(20, 20), GREY[2]]
    keep, skip, stop = (Given(pictures, Reading(on_damage=on)) for on in ("keep", "skip", "stop"))
    assert [frame.index for frame in keep] == [0]
    assert [(frame.index, round(frame.timestamp, 6)) for frame in skip] == [
        (0, 0.0), (2, 0.2), (4, 0.4),
    ]  # fmt: skip
    for source in (keep, skip):
        assert source.damage is not None and source.damage.frame == 1
        assert source.damage.seconds == pytest.approx(0.1)
        assert len(source.facts.notes) == 1
    with pytest.raises(InputError):
        list(stop)
    with pytest.raises(InputError):
        Given(["is damaged", GREY[0]])
    assert len(images(Given(["is damaged", GREY[0]], Reading(on_damage="skip")))) == 1


def test_pixels_that_are_not_square_are_made_so() -> None:
    source = Given(GREY, spacing=(0.4, 0.2))
    assert source.size == (120, 40) == source.facts.size
    assert images(source)[0].shape == (40, 120)
    assert source.facts.spacing == (0.2, 0.2) and source.facts.stored == (120, 40)
    high = Given(GREY, Reading(Crop(10, 20, 40, 90)), spacing=(0.1, 0.3))
    assert high.size == (40, 90) and images(high)[0].shape == (90, 40)
    odd = Given(GREY, spacing=(0.1, 30.0))
    assert odd.size == (60, 40) and len(odd.facts.notes) == 1


def test_the_region_is_cut_out_or_all_else_is_blackened(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, named, found = Crop(3, 4, 20, 10), Crop(5, 6, 30, 20), Crop(10, 8, 24, 16)
    inside = np.zeros((40, 60), bool)
    inside[10:20, 12:30] = True
    region = Mock(box=found, shape="sector", mask=lambda height, width: inside, found=True)
    region.uncropped = True
    monkeypatch.setattr("sonomime.runtime.readers.source.find_region", lambda frames: region)
    for how, facts, crop in (
        (Reading(asked), {"named_region": named}, asked),
        (Reading(), {"named_region": named}, named),
        (Reading("auto"), {"named_region": named}, named),
        (Reading("auto"), {}, found),
    ):
        source = Given(GREY, how, **facts)
        x, y, w, h = crop
        assert (source.crop, source.size, source.facts.region) == (crop, (w, h), crop)
        assert np.array_equal(images(source)[0], GREY[0][y : y + h, x : x + w])
        whole = next(source.frames(whole=True)).image
        assert np.array_equal(whole, GREY[0])
        source.warn_of_clutter()
        assert source.facts.notes == []
    for how, shown in ((Reading(asked, mask=True), None), (Reading(mask=True), inside)):
        source = Given(GREY, how)
        x, y, w, h = how.crop or found
        mask = np.zeros((40, 60), bool)
        mask[y : y + h, x : x + w] = True
        mask = mask if shown is None else mask & shown
        assert (source.crop, source.size) == (None, (60, 40))
        assert np.array_equal(images(source)[0], GREY[0] * mask)
    source = Given(GREY)
    source.warn_of_clutter()
    assert source.facts.region is None and len(source.facts.notes) == 1
    whole = Given(GREY, Reading(option="--source-"))
    whole.warn_of_clutter()
    assert "--source-crop auto" in whole.facts.notes[0]
    region.found, region.box = False, Crop(0, 0, 60, 40)
    assert len(Given(GREY, Reading("auto")).facts.notes) == 1
    with pytest.raises(InputError):
        Given(GREY, Reading(mask=True))
    with pytest.raises(InputError, match="reaches outside"):
        Given(GREY, Reading(Crop(50, 0, 20, 20)))


def test_a_rate_and_a_window_are_read_from_text_or_refused() -> None:
    assert parse_rate("30000/1001") == Fraction(30000, 1001) and parse_rate("12.5") == 12.5
    assert parse_window("-5, 1e3") == Window(-5, 1000)
    for parse, texts in (
        (parse_rate, ("0", "-3", "x", "1/0", "1e9")),
        (parse_window, ("1", "2,1", "a,b", "nan,1", "1,1", "1,2,3")),
    ):
        for text in texts:
            with pytest.raises(ConfigError):
                parse(text)
