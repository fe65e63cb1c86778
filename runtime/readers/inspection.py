"""What a picture, clip or folder is read as, in words and on a contact sheet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..media.contact_sheet import Spread, cell, check_sheet, corners, write_sheet
from ..media.frames import Crop
from ..media.text import find_text
from ..support.progress import progress
from .open_source import open_source
from .reading import Damage, Facts, Frame, Reading

_MOST, _COLUMNS, _SIDE = 12, 4, 320  # pictures on a sheet; pixels


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
        text: places of the whole frame where text seems to stand; some can be missed.
    """

    path: Path
    facts: Facts
    frames: int
    seconds: float
    damage: Damage | None
    auto: Crop
    shape: str
    uncropped: bool
    text: list[Crop]

    def lines(self) -> list[str]:
        """All of it for people."""
        last = f", the last at {self.seconds:.3f} s" if self.frames > 1 else ""
        x, y, w, h = self.auto
        return [
            f"{self.path}: {self.facts.line()}",
            f"read: {self.frames} frame{'s' if self.frames != 1 else ''}{last}",
            f"ultrasound: {x},{y},{w},{h} ({self.shape})"
            + (", with other things around it" if self.uncropped else ""),
            f"text, perhaps: {len(self.text)} place{'s' if len(self.text) != 1 else ''}",
        ]


def inspect(path: Path, how: Reading, sheet: Path | None = None) -> Inspection:
    """Read all of an input, as `how` says, and draw some of its frames with the region.

    Raises:
        InputError: it cannot be read.
        ConfigError: the sheet is not a .png file.
        OutputError: the sheet cannot be written.
    """
    check_sheet(sheet)
    source = open_source(path, how, 3, announce=False)
    source.warn_of_clutter()
    if source.facts.colour and source.count_hint != 1:
        said = "as a driving clip it is read as grey levels, without its colours (Doppler?)"
        source.note(said, harmless=True)
    region = source.find_region()
    spread, time = Spread[Frame](_MOST), 0.0
    for frame in progress(source.frames(whole=True), source.count_hint, "inspect"):
        spread.add(frame)
        time = frame.timestamp
    text = find_text([frame.image for frame in spread.kept])
    if sheet is not None:
        read = source.facts.region
        outline = region.outline if read is None else corners(read)
        shown = spread.kept[:: -(-len(spread.kept) // _MOST)]
        cells = [
            cell(frame.image, f"{frame.index}: {frame.timestamp:.2f} s", _SIDE, outline, text)
            for frame in shown
        ]
        write_sheet(sheet, cells, _COLUMNS)
    facts = replace(source.facts, frames=spread.count)
    return Inspection(
        path, facts, spread.count, time, source.damage, region.box, region.shape, region.uncropped,
        text,
    )  # fmt: skip
