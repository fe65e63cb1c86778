"""What a DICOM header says of the frames: levels, times, region, spacing, and what is dropped."""

from __future__ import annotations

import math
from collections.abc import MutableSequence
from fractions import Fraction
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..media.frames import Crop
from ..media.levels import Window
from ..support.errors import InputError
from .dicom_file import OVERLAYS, SYNTHETIC, Header
from .reading import IS_SYNTHETIC
from .source import FrameSource

_CENTIMETRES = 3
_TWO_D, _TISSUE, _COLOUR_FLOW = 1, 1, 2
_STRAY = 2
"""Pixels by which some makers' regions reach outside; one that does by more is of another size."""
_FRAME_TIME = 0x00181063
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
    if str(getattr(elements.get(SYNTHETIC), "value", "")) == "YES":
        source.note(IS_SYNTHETIC)
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
        slope = _number(elements, "RescaleSlope", 1.0)
        intercept = _number(elements, "RescaleIntercept")
        if abs(slope) < 1e-9:
            source.note(f"its rescale slope of {slope:g} is left out")
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


class _Named(NamedTuple):
    """An ultrasound region of the header: its part of the picture, None where it is of another size
    or of none; its data type where it is a 2D picture, else 0; (x, y) millimetres a pixel; whether
    it reaches outside."""

    box: Crop | None
    kind: float
    spacing: tuple[float, float] | None
    outside: bool


def _named(item: Any, rows: int, columns: int) -> _Named:
    x0, y0, x1, y1 = (
        int(_number(item, f"RegionLocation{corner}", -1))
        for corner in ("MinX0", "MinY0", "MaxX1", "MaxY1")  # the last two are inside
    )
    right, bottom = min(x1, columns - 1), min(y1, rows - 1)
    box = Crop(x0, y0, right - x0 + 1, bottom - y0 + 1)
    fits = min(x0, y0) >= 0 and x1 < columns + _STRAY and y1 < rows + _STRAY
    units = [_number(item, f"PhysicalUnits{axis}Direction") for axis in "XY"]
    across, down = (abs(_number(item, f"PhysicalDelta{axis}")) * 10 for axis in "XY")
    return _Named(
        box if fits and min(box.w, box.h) >= 8 else None,
        _number(item, "RegionDataType") if _number(item, "RegionSpatialFormat") == _TWO_D else 0,
        (across, down) if units == [_CENTIMETRES, _CENTIMETRES] and across * down > 0 else None,
        (right, bottom) != (x1, y1),
    )


def _choose_region(source: FrameSource, items: list[Any], shape: tuple[int, int, int]) -> None:
    """The one that is asked for, or the largest B-mode picture; of colour flow if it is alone."""
    asked, path = source.how.region, source.path
    source.facts.regions = len(items)
    regions = [_named(item, *shape[:2]) for item in items]
    if asked is None:
        shown = [region for region in regions if region.kind in (_TISSUE, _COLOUR_FLOW)]
        if isinstance(source.how.crop, Crop):
            pass  # the region is of no use but for its spacing
        elif any(region.box is None for region in shown):
            source.note("a region that it names does not fit into the picture, and is left out")
        elif regions and not shown:
            source.note("none of the regions that it names is a B-mode picture")
        fitting = [(region.kind == _TISSUE, region.box.w * region.box.h, region)
                   for region in shown if region.box is not None]  # fmt: skip
        if not fitting:
            return
        region = max(fitting, key=lambda each: each[:2])[2]
        if len(regions) > 1 and not isinstance(source.how.crop, Crop):
            others = "another region is" if len(regions) == 2 else f"{len(regions) - 1} others are"
            source.note(f"{others} left out; {source.how.option}region N reads one")
    elif 0 <= asked < len(regions):
        region = regions[asked]
    else:
        raise InputError(
            f"{path} has no region {asked}: it names {len(regions)} ultrasound regions",
            "they are counted from 0" if regions else f"leave out {source.how.option}region",
        )
    if region.box is None:
        raise InputError(
            f"the region {asked} of {path} does not fit into the picture", "use --crop"
        )
    if region.outside:
        source.note("the region that it names reaches outside of the picture, and is cut there")
    source.named_region = region.box
    source.facts.spacing = region.spacing or source.facts.spacing


def _times(source: FrameSource, elements: Any, frames: int) -> list[float]:
    """By what the file points at, else by what else it has."""
    names = ["FrameTimeVector", "FrameTime"]
    if elements.get("FrameIncrementPointer") == _FRAME_TIME:
        names.reverse()
    for name in (*names, "CineRate", "RecommendedDisplayFrameRate"):
        if name not in elements:
            continue
        values, times = _numbers(elements, name), [0.0]  # in milliseconds
        if name == "FrameTimeVector" and len(values) == frames and min(values) >= 0:
            times = list(accumulate([0.0, *values[1:]]))
        elif name != "FrameTimeVector" and len(values) == 1 and values[0] > 0:
            step = values[0] if name == "FrameTime" else 1000 / values[0]
            times = [i * step for i in range(frames)]
        rate = 1000 * (frames - 1) / times[-1] if times[-1] > 0 else 0.0
        if _RATES[0] <= rate <= _RATES[1]:
            source.stated = Fraction(rate).limit_denominator(1001), f"its {name}"
            return [time / 1000 for time in times]
        source.note(f"its {name} is not usable, and left out")
    return []


def _numbers(elements: Any, keyword: str) -> list[float]:
    """The numbers of an element; none where it is absent, or holds anything else."""
    try:
        value = elements.get(keyword)
        if isinstance(value, bytes):  # text that is too long for its own kind of element
            value = value.decode().split("\\")
        several = isinstance(value, MutableSequence)
        numbers = [float(each) for each in (value if several else [value])]
    except Exception:  # pydicom raises many kinds of errors on damaged values
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


def _number(elements: Any, keyword: str, default: float = 0.0) -> float:
    return (*_numbers(elements, keyword), default)[0]
