"""Clips decoded once: cropped, letterboxed, without repeats, as memory-mapped arrays.

Screen recordings repeat up to 60 % of their frames. A frame is a repeat when it differs from the
last frame that was KEPT (not from its neighbour: slow motion must not vanish) by at most
REPEAT_LEVELS grey levels on average, over the cropped image resized to 256 x 256, so that the
answer does not depend on the model's size or on padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox, crop_image, letterbox, to_channels
from ...runtime.media.video import frame_files, open_source
from ...runtime.support.errors import InputError
from .array_cache import Layout, cached_arrays
from .displacement_file import read_fields, read_sector

_VERSION = 4  # of the entries
REPEAT_LEVELS = 0.18
_COMPARE_SIZE = 256
_CURE = "make the file again, or remove it: training then measures the flow of this clip"


class CachedFrames(NamedTuple):
    """One clip as a model sees it."""

    frames: NDArray[np.uint8]  # (T, size, size) or (T, size, size, 3), memory-mapped
    indices: NDArray[np.int64]  # (T,), each frame's number in the file (repeats are missing)
    letterbox: Letterbox  # where the cropped image lies in the frame
    displacement: NDArray[np.float32] | None  # as `ClipFrames` has it
    sector: NDArray[np.bool_] | None  # cells wholly inside the file's sector and the picture
    kept: NDArray[np.int64]  # (N,), for each decoded frame the t of itself or of what it repeats


def cached_frames(
    path: Path, crop: Crop | None, size: int, channels: int, displacement: Path | None = None
) -> CachedFrames:
    """Decode a video or a folder of frames, or take what an earlier call decoded.

    Args:
        displacement: the file of its exact displacement, of which a quarter of the size is kept.

    Raises:
        InputError: what :func:`open_source` says of a clip that it cannot read, and
            :func:`read_fields` of its displacement.
        OutputError: see `cached_arrays`.
    """

    def write(stream: BinaryIO) -> Layout:
        kept: list[int] = []
        count, last = 0, None
        with open_source(path, crop, channels) as source:
            for _, _, image in source:
                grey, square = to_channels(image, 1), (_COMPARE_SIZE, _COMPARE_SIZE)
                small = cv2.resize(grey, square, interpolation=cv2.INTER_AREA).astype(np.int16)
                if last is None or np.abs(small - last).mean() > REPEAT_LEVELS:
                    frame, box = letterbox(image, size)
                    stream.write(frame.tobytes())
                    count, last = count + 1, small
                kept.append(count - 1)
        if not kept:
            raise InputError(f"{path} has no frames", "check that it plays")
        stream.write(np.array([*kept, box.width, box.height], "<i8").tobytes())
        layout = [("|u1", (count, *frame.shape)), ("<i8", (len(kept),)), ("<i8", (2,))]
        if displacement is not None:
            layout += _write_displacement(stream, displacement, path, crop, box, kept)
        return layout

    try:
        files = frame_files(path) if path.is_dir() else [path]
        files += [displacement] if displacement else []
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    where = [str(each.resolve()) for each in (path, displacement) if each]
    facts = [_VERSION, REPEAT_LEVELS, where, stats, crop, size, channels]
    frames, kept, (width, height), *exact = cached_arrays(facts, write)
    box = Letterbox.fit(int(width), int(height), size)
    indices = np.flatnonzero(np.diff(kept, prepend=-1))
    return CachedFrames(frames, indices, box, *(exact or (None, None)), np.array(kept))


def _write_displacement(
    stream: BinaryIO, file: Path, path: Path, crop: Crop | None, box: Letterbox, kept: list[int]
) -> list[tuple[str, tuple[int, ...]]]:
    """Write the displacement of the kept frames, in points, and the sector."""
    quarter = box.size // 4
    # The letterbox knows the picture after the crop, the file speaks of that before it.
    width, height = open_source(path, None, 1).size
    region = crop or Crop(0, 0, width, height)
    # Where the centres of the quarter-size cells lie in the original, in pixels.
    line = np.arange(quarter) * 4 + 1.5
    at = box.to_picture(np.stack(np.meshgrid(line, line), axis=-1)) + region[:2]
    at_x, at_y = np.ascontiguousarray(at.transpose(2, 0, 1), np.float32)
    # From pixels of the original to half_pixel points of the square.
    unit = np.array([box.w / box.width, box.h / box.height], np.float32)
    unit *= np.float32(2 / box.size)
    inside = read_sector(file, (height, width), _CURE)
    last = -1
    for field, t in zip(read_fields(file, len(kept), (height, width), _CURE), kept, strict=True):
        if t != last:
            border = cv2.BORDER_REPLICATE
            small = cv2.remap(field, at_x, at_y, cv2.INTER_LINEAR, borderMode=border)
            stream.write(np.asarray(small * unit, "<f4").tobytes())
        last = t
    levels = crop_image(np.where(inside, np.uint8(255), np.uint8(0)), region)
    whole = cv2.resize(box.place(levels), (quarter, quarter), interpolation=cv2.INTER_AREA)
    stream.write((whole == 255).tobytes())
    return [("<f4", (kept[-1] + 1, quarter, quarter, 2)), ("|b1", (quarter, quarter))]
