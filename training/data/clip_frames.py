"""A clip as a model sees it: decoded once, cropped, letterboxed, without repeats, with labels.

Screen recordings repeat up to 60 % of their frames. A frame is a repeat when it differs from the
last frame that was KEPT (not from its neighbour: slow motion must not vanish) by at most
REPEAT_LEVELS grey levels on average, over the cropped image resized to 256 x 256, so that the
answer does not depend on the model's size or on padding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Image, Letterbox, crop_image, letterbox, to_channels
from ...runtime.readers.open_source import files_of, open_source
from ...runtime.readers.reading import Reading
from ...runtime.readers.source import warn_once
from ...runtime.support.errors import InputError
from .array_cache import Layout, cached_arrays
from .dataset import Clip, frame_files
from .displacement_file import read_fields, read_sector
from .keypoints import LabelError, outside, place_keypoints

_VERSION = 7  # of the cache's entries
REPEAT_LEVELS = 0.18
_COMPARE_SIZE = 256
_CURE = "make the file again, or remove it: training then measures the flow of this clip"


@dataclass(frozen=True)
class ClipFrames:
    """A clip's T frames and P keypoints, in a square of S pixels a side."""

    clip: Clip  # its crop is the rectangle that was read, or None
    frames: NDArray[np.uint8]  # (T, S, S) or (T, S, S, 3), memory-mapped
    indices: NDArray[np.int64]  # (T,), the frames' numbers in the file (repeats are missing)
    points: NDArray[np.float32]  # (T, P, 2) half_pixel points, zero where not visible
    visible: NDArray[np.bool_]  # (T, P): labelled, visible and inside the crop
    absent: NDArray[np.bool_]  # (T, P): the label says not visible, or it lies outside the crop
    letterbox: Letterbox  # where the cropped image lies in the frame
    #: (T, S/4, S/4, 2), memory-mapped: exact, in half_pixel points, from each frame to the file's
    #: first; None where it is not known.
    displacement: NDArray[np.float32] | None = None
    sector: NDArray[np.bool_] | None = None  # (S/4, S/4), cells where the displacement is valid
    decoded: int = 0  # how many frames the file has, repeats included

    def __len__(self) -> int:
        return len(self.frames)


class Repeats:
    """Knows the last frame that was kept."""

    def __init__(self) -> None:
        self._last: NDArray[np.int16] | None = None

    def is_new(self, image: Image) -> bool:
        """Whether a cropped frame repeats none; it is then the one that was kept last."""
        grey, square = to_channels(image, 1), (_COMPARE_SIZE, _COMPARE_SIZE)
        small = cv2.resize(grey, square, interpolation=cv2.INTER_AREA).astype(np.int16)
        if self._last is not None and np.abs(small - self._last).mean() <= REPEAT_LEVELS:
            return False
        self._last = small
        return True


def load_clip(clip: Clip, size: int, channels: int) -> ClipFrames:
    """Decode a clip for a model of ``size`` pixels a side and 1 or 3 channels, or map what the
    cache holds. The labels of a repeated frame go to the one that it repeats, if that has none.

    Raises:
        InputError: the clip or its displacement cannot be read, or they do not fit.
        LabelError: a label names a frame beyond its end, or is visible and beside the picture.
        OutputError: see `cached_arrays`.
    """
    path, exact = clip.path, clip.displacement
    try:
        files = [*files_of(path), *([exact] if exact else [])]
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError as error:
        fault = f"cannot read {error.filename or path}: {error.strerror or error}"
        raise InputError(fault, "check the path and its permissions") from error
    where = [str(each.resolve()) for each in (path, exact) if each]
    facts = [_VERSION, REPEAT_LEVELS, where, stats, clip.crop, size, channels]
    frames, kept, (*sizes, left, top, wide, high), said, *fields = cached_arrays(
        facts, lambda stream: _decode(stream, clip, size, channels)
    )
    for note in filter(None, bytes(said).decode("utf-8", "surrogateescape").splitlines()):
        warn_once(path, note)
    cut = Crop(*map(int, (left, top, wide, high)))
    clip = replace(clip, crop=cut if any(cut) else None)
    *stored, width, height = map(int, sizes)
    box = Letterbox.fit(width, height, size)
    indices = np.flatnonzero(np.diff(kept, prepend=-1))
    names = clip.keypoint_names
    points = np.zeros((len(frames), len(names), 2), np.float32)
    visible, absent = (np.zeros(points.shape[:2], np.bool_) for _ in range(2))
    if astray := outside(Crop(0, 0, *stored), clip.keypoints):
        frame, name = astray[0]
        x, y = clip.keypoints[frame][name]
        files = frame_files(clip)
        called = frame if files is None else files[frame]  # as the table calls it
        count = f" ({len(astray)} labels in all)" if len(astray) > 1 else ""
        fault = f"keypoints.csv puts {name!r} of frame {called} of {path} at {x:g},{y:g}{count}"
        hint = "correct it, or write 0 in the column visible; pixels are those before any crop"
        raise LabelError(f"{fault}, beside the picture of {stored[0]} x {stored[1]}", hint)
    for index, labels in clip.keypoints.items():
        if index >= len(kept):
            fault = f"keypoints.csv labels frame {index} of {path}, which is not there"
            raise LabelError(fault, f"it has {len(kept)} frames, counted from 0")
        t = int(kept[index])
        if indices[t] == index or not visible[t].any():
            points[t], visible[t] = place_keypoints(labels, names, clip.crop, box)
            absent[t] = np.array([name in labels for name in names], np.bool_) & ~visible[t]
    known = fields or (None, None)
    return ClipFrames(
        clip, frames, indices, points, visible, absent, box, *known, decoded=len(kept)
    )


def _decode(stream: BinaryIO, clip: Clip, size: int, channels: int) -> Layout:
    """Write the frames that are no repeats; for each decoded one the number t of itself or of what
    it repeats; width and height of the original, the same after the crop, and the crop; what the
    reader noted; the exact displacement, if there is one."""
    kept: list[int] = []
    count, repeats = 0, Repeats()
    source = open_source(clip.path, Reading(clip.crop, timed=False), channels)
    source.warn_of_clutter()
    for _, _, image in source:
        if repeats.is_new(image):
            frame, box = letterbox(image, size)
            stream.write(frame.tobytes())
            count += 1
        kept.append(count - 1)
    if not kept:
        raise InputError(f"{clip.path} has no frames", "check that it plays")
    crop = source.crop or (0, 0, 0, 0)
    sizes = *source.facts.stored, box.width, box.height
    stream.write(np.array([*kept, *sizes, *crop], "<i8").tobytes())
    said = "\n".join(source.facts.notes).encode("utf-8", "surrogateescape") or b"\n"
    stream.write(said)
    layout = [("|u1", (count, *frame.shape)), ("<i8", (len(kept),)), ("<i8", (8,))]
    layout.append(("|u1", (len(said),)))
    if clip.displacement is None:
        return layout
    # The displacement of the kept frames, in points, and the sector, at a quarter of the size. The
    # letterbox knows the picture after the crop, the file speaks of that before it.
    quarter = size // 4
    width, height = source.facts.stored
    region = source.crop or Crop(0, 0, width, height)
    # Where the centres of the cells lie in the original, in pixels.
    line = np.arange(quarter) * 4 + 1.5
    at = box.to_picture(np.stack(np.meshgrid(line, line), axis=-1)) + region[:2]
    at_x, at_y = np.ascontiguousarray(at.transpose(2, 0, 1), np.float32)
    # From pixels of the original to half_pixel points of the square.
    unit = np.array([box.w / box.width, box.h / box.height], np.float32) * np.float32(2 / size)
    inside = read_sector(clip.displacement, (height, width), _CURE)
    fields = read_fields(clip.displacement, len(kept), (height, width), _CURE)
    for field, is_new in zip(fields, np.diff(kept, prepend=-1), strict=True):
        if is_new:
            border = cv2.BORDER_REPLICATE
            small = cv2.remap(field, at_x, at_y, cv2.INTER_LINEAR, borderMode=border)
            stream.write(np.asarray(small * unit, "<f4").tobytes())
    levels = crop_image(np.where(inside, np.uint8(255), np.uint8(0)), region)
    whole = cv2.resize(box.place(levels), (quarter, quarter), interpolation=cv2.INTER_AREA)
    stream.write((whole == 255).tobytes())  # cells wholly inside the sector and the picture
    return [*layout, ("<f4", (count, quarter, quarter, 2)), ("|b1", (quarter, quarter))]
