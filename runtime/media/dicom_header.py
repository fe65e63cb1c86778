"""What a DICOM header says of the frames: levels, times, region, spacing, and what is dropped."""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError
from .dicom_file import OVERLAYS, Header
from .frames import Crop
from .levels import Window
from .source import FrameSource

_CENTIMETRES = 3
_TWO_D, _TISSUE, _COLOUR_FLOW = 1, 1, 2
_STRAY = 2
"""Pixels by which some makers' regions reach outside; one that does by more is of another size."""
_RATES = 1 / 60, 10_000
"""Frames a second that are believed."""


def describe(source: FrameSource, header: Header) -> list[float]:
    """Fill in what a source can know from the header.

    Returns:
        The time of each frame in seconds; empty where the file does not say it.

    Raises:
        InputError: the region that is asked for is not there, or reading is strict.
    """
    elements, facts = header.elements, source.facts
    facts.bits = header.bits[1]
    facts.burned_in = {"YES": True, "NO": False}.get(header.text("BurnedInAnnotation"))
    if facts.burned_in:
        source.note("it says that it shows who was examined (BurnedInAnnotation)")
    if (modality := header.text("Modality")) not in ("US", "IVUS"):
        source.note(f"it is not ultrasound: its modality is {modality or 'not stated'}")
    if any(tag in elements for tag in OVERLAYS):
        source.note("its overlays are not drawn")
    if aspect := _numbers(elements, "PixelAspectRatio"):
        down, across = (*aspect, 0.0)[:2]
        source.aspect = across / down if down > 0 and across > 0 else 1.0
    spacing = _numbers(elements, "PixelSpacing")
    if len(spacing) == 2 and min(spacing) > 0:
        facts.spacing = spacing[1], spacing[0]
    _choose_region(source, list(elements.get("SequenceOfUltrasoundRegions") or ()), header.shape)
    return _times(source, elements, header.frames) if header.frames > 1 else []


def window_of(source: FrameSource, header: Header) -> tuple[Window, str] | None:
    """Which stored values are black and white (PS3.3 C.11.2.1.2); None for all of 0..255."""
    elements, stored = header.elements, header.bits[1]
    signed = bool(elements.get("PixelRepresentation"))
    low = -(1 << stored - 1) if signed else 0
    window, why = Window(low, low + (1 << stored) - 1), "as the file says"
    if header.shape[2] == 1:
        source.inverted = header.text("PhotometricInterpretation") == "MONOCHROME1"
        slope, intercept = (
            (*_numbers(elements, key), default)[0]
            for key, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
        )
        if slope == 0:
            source.note("its rescale slope of 0 is left out")
            slope, intercept = 1.0, 0.0
        if slope < 0:
            window = window.inverted()
        if any(elements.get(f"{kind}LUTSequence") for kind in ("Modality", "VOI")):
            source.note("its lookup tables are left out")
        centre, width = _numbers(elements, "WindowCenter"), _numbers(elements, "WindowWidth")
        function = header.text("VOILUTFunction") or "LINEAR"
        exact = function == "LINEAR_EXACT"
        if centre and width and width[0] >= (1e-6 if exact else 1):
            if function not in ("LINEAR", "LINEAR_EXACT"):
                source.note(f"its window is taken as linear, not {function}")
            middle = centre[0] if exact else centre[0] - 0.5
            half = max(width[0] if exact else width[0] - 1, 1e-6) / 2
            window = Window(
                (middle - half - intercept) / slope, (middle + half - intercept) / slope
            )
            why = "its window"
        elif centre or width:
            source.note("its window is not usable, and left out")
    return None if [*window] == [0, 255] and header.bits[0] == 8 and not signed else (window, why)


def palette_of(header: Header) -> NDArray[np.uint8]:
    """(2 ** bits stored, 3): the RGB levels of every value (PS3.3 C.7.6.3.1.5)."""
    elements, columns = header.elements, []
    for colour in ("Red", "Green", "Blue"):
        name = f"{colour}PaletteColorLookupTable"
        if f"{name}Data" not in elements:
            raise ValueError("its palette is missing or segmented")
        count, first = (int(each) for each in elements[f"{name}Descriptor"].value[:2])
        data, count = elements[f"{name}Data"].value, count or 1 << 16
        deep = len(data) >= 2 * count
        if header.order == ">" and not deep:
            raise ValueError("its palette of 8 bits is big endian")
        table = np.frombuffer(data, f"{header.order}u2" if deep else np.uint8, count)
        levels = (table >> 8 if table.max() > 255 else table).astype(np.uint8)
        columns.append(levels[np.clip(np.arange(1 << header.bits[1]) - first, 0, count - 1)])
    return np.stack(columns, axis=1)


def _choose_region(source: FrameSource, items: Sequence[Any], shape: tuple[int, int, int]) -> None:
    asked, path = source.how.region, source.path
    source.facts.regions = len(items)
    if asked is not None and not 0 <= asked < len(items):
        raise InputError(
            f"{path} has no region {asked}: it names {len(items)} ultrasound regions",
            "they are counted from 0" if items else "leave out --region",
        )
    boxes = [_box(item, shape[1], shape[0]) for item in items]
    kinds = [
        [(*_numbers(item, key), 0)[0] for key in ("RegionSpatialFormat", "RegionDataType")]
        for item in items
    ]
    number: int | None = asked
    if asked is None:
        shown = [i for i, (space, kind) in enumerate(kinds)
                 if space == _TWO_D and kind in (_TISSUE, _COLOUR_FLOW)]  # fmt: skip
        number = max(
            (i for i in shown if boxes[i] is not None),
            key=lambda i: (kinds[i][1] == _TISSUE, boxes[i].w * boxes[i].h),  # type: ignore[union-attr]
            default=None,
        )
        if any(boxes[i] is None for i in shown):
            source.note("a region that it names does not fit into the picture, and is left out")
        if number is None and items and not shown:
            source.note("none of the regions that it names is a B-mode picture")
        elif number is not None and len(items) > 1 and source.how.crop in (None, "auto"):
            source.note(
                f"{len(items) - 1} other ultrasound regions are left out; --region N reads one"
            )
    if number is None:
        return
    box = boxes[number]
    if box is None:
        raise InputError(
            f"the region {number} of {path} does not fit into the picture", "use --crop"
        )
    source.named_region = box
    if _corners(items[number])[2:] != (box.x + box.w - 1, box.y + box.h - 1):
        source.note("the region that it names reaches outside of the picture, and is cut there")
    units, deltas = (
        [(*_numbers(items[number], key.format(axis)), 0)[0] for axis in "XY"]
        for key in ("PhysicalUnits{}Direction", "PhysicalDelta{}")
    )
    if units == [_CENTIMETRES, _CENTIMETRES] and all(deltas):
        source.facts.spacing = abs(deltas[0]) * 10, abs(deltas[1]) * 10


def _corners(item: Any) -> tuple[float, ...]:
    names = ("MinX0", "MinY0", "MaxX1", "MaxY1")
    return tuple((*_numbers(item, f"RegionLocation{name}"), -1)[0] for name in names)


def _box(item: Any, width: int, height: int) -> Crop | None:
    """A region within the picture; None where it is of another size, or of none."""
    x0, y0, x1, y1 = map(int, _corners(item))  # the last two are inside
    if min(x0, y0) < 0 or x1 >= width + _STRAY or y1 >= height + _STRAY:
        return None
    box = Crop(x0, y0, min(x1, width - 1) - x0 + 1, min(y1, height - 1) - y0 + 1)
    return box if min(box.w, box.h) >= 8 else None


def _times(source: FrameSource, elements: Any, frames: int) -> list[float]:
    """By what the file points at, else by what else it has."""
    facts = source.facts
    pointed = elements.get("FrameIncrementPointer")
    names = ["FrameTimeVector", "FrameTime"]
    if pointed == 0x00181063:
        names.reverse()
    for name in (*names, "CineRate", "RecommendedDisplayFrameRate"):
        if name not in elements:
            continue
        values = _numbers(elements, name)
        whole = len(values) == (frames if name == "FrameTimeVector" else 1)
        total = sum(values[1:]) if name == "FrameTimeVector" else values[0] if values else 0.0
        rate = 0.0
        if whole and total > 0 and min(values) >= 0:
            each = (frames - 1) * 1000 if name == "FrameTimeVector" else 1000
            rate = each / total if name.startswith("FrameTime") else total
        if not _RATES[0] <= rate <= _RATES[1]:
            source.note(f"its {name} is not usable, and left out")
            continue
        source.fps, facts.rate = Fraction(rate).limit_denominator(1001), f"its {name}"
        if name == "FrameTimeVector":
            return [each / 1000 for each in accumulate([0.0, *values[1:]])]
        step = total / 1000 if name == "FrameTime" else 1 / rate
        return [i * step for i in range(frames)]
    return []


def _numbers(elements: Any, keyword: str) -> list[float]:
    """The numbers of an element; none where it is absent, or holds anything else."""
    try:
        value = elements.get(keyword)
        numbers = [
            float(each) for each in (value if isinstance(value, MutableSequence) else [value])
        ]
    except Exception:  # pydicom raises many kinds of errors on damaged values
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
