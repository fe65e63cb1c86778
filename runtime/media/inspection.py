"""What a picture, clip or folder is read as, in words and on a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..support.atomic_files import atomic_path
from ..support.errors import ConfigError, output_errors
from ..support.progress import progress
from .frames import Crop, Image, png_bytes, resize, to_channels
from .readers import open_source
from .region import Region
from .source import Damage, Facts, Frame, FrameSource, Reading

_MOST, _COLUMNS, _WIDTH, _STRIP = 12, 4, 320, 22  # pictures on a sheet; pixels
_LINE = (255, 200, 0)


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        path: what was read.
        facts: what the reader says.
        frames: how many frames there are in fact.
        seconds: from the first to the last.
        damage: where it is damaged first.
        auto: the region that --crop auto takes, and `shape`, "rectangle" or "sector".
        uncropped: whether the picture shows so much else that it should be cropped.
    """

    path: Path
    facts: Facts
    frames: int
    seconds: float
    damage: Damage | None
    auto: Crop
    shape: str
    uncropped: bool

    def lines(self) -> list[str]:
        """All of it for people."""
        last = f", the last at {self.seconds:.3f} s" if self.frames > 1 else ""
        x, y, w, h = self.auto
        return [
            f"{self.path}: {self.facts.line()}",
            f"read: {self.frames} frame{'s' if self.frames != 1 else ''}{last}",
            f"ultrasound: {x},{y},{w},{h} ({self.shape})"
            + (", with other things around it" if self.uncropped else ""),
        ]


def inspect(path: Path, how: Reading, sheet: Path | None = None) -> Inspection:
    """Read all of an input, as `how` says, and draw some of its frames with the region.

    Raises:
        InputError: it cannot be read.
        ConfigError: the sheet is not a .png file.
        OutputError: the sheet cannot be written.
    """
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ConfigError(f"a contact sheet is a .png file, not {sheet}", "-o sheet.png")
    source = open_source(path, how, 3)
    source.warn_of_clutter()
    region = source.find_region()
    count, time, every = 0, 0.0, 1
    shown: list[Frame] = []
    for frame in progress(source.frames(whole=True), source.count_hint, "inspect"):
        if count % every == 0:
            shown.append(frame)
            if len(shown) == 2 * _MOST:
                shown, every = shown[::2], 2 * every
        count, time = count + 1, frame.timestamp
    if sheet is not None:
        picture = _sheet(source, shown, region)
        with output_errors(sheet), atomic_path(sheet) as temporary:
            temporary.write_bytes(png_bytes(picture))
    facts = replace(source.facts, frames=count)
    return Inspection(
        path, facts, count, time, source.damage, region.box, region.shape, region.uncropped
    )


def _sheet(source: FrameSource, frames: list[Frame], region: Region) -> Image:
    """Frames side by side; around the region that is read, or would be, a line."""
    import cv2

    step = -(-len(frames) // _MOST)
    frames = frames[::step]
    height, width = frames[0].image.shape[:2]
    scale = _WIDTH / max(width, height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    columns = min(_COLUMNS, len(frames))
    rows = -(-len(frames) // columns)
    sheet = np.zeros((rows * (h + _STRIP), columns * (w + 4), 3), np.uint8)
    outline = region.outline
    if source.facts.region is not None:
        x, y, across, down = source.facts.region
        outline = np.array(
            [(x, y), (x + across - 1, y), (x + across - 1, y + down - 1), (x, y + down - 1)]
        )
    for place, frame in enumerate(frames):
        top, left = place // columns * (h + _STRIP), place % columns * (w + 4)
        cell = np.ascontiguousarray(resize(to_channels(frame.image, 3), w, h))
        cv2.polylines(cell, [np.int32(outline * scale).reshape(-1, 1, 2)], True, _LINE)
        sheet[top + _STRIP : top + _STRIP + h, left : left + w] = cell
        strip = np.zeros((_STRIP, w, 3), np.uint8)
        said = f"{frame.index}: {frame.timestamp:.2f} s"
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(strip, said, (3, _STRIP - 7), font, 0.45, (220, 220, 220), 1, cv2.LINE_AA)
        sheet[top : top + _STRIP, left : left + w] = strip
    return sheet
