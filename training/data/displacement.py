"""Exact displacement fields beside a dataset's clips: found, decoded once, kept small.

``displacement/<stem of the clip's file>.npz`` in a dataset folder belongs to a clip (its arrays:
`displacement_file`). A quarter of the model's size is kept with the decoded clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, crop_image
from ...runtime.media.video import open_source
from ...runtime.support.errors import InputError
from .array_cache import Arrays, cached_arrays
from .displacement_file import open_displacement
from .frame_cache import CachedFrames, cache_facts, write_header

_CURE = "make the file again, or remove it: training then measures the flow of this clip"


class CachedDisplacement(NamedTuple):
    """The displacement of a clip's kept frames, as `ClipFrames` has it. A cell of the sector lies
    wholly inside the file's sector and the picture."""

    field: NDArray[np.float32]
    sector: NDArray[np.bool_]


def find_displacements(folder: Path, clips: Sequence[Path]) -> dict[Path, Path]:
    """The displacement file of each clip of a dataset folder that has one.

    Raises:
        InputError: two clips would share one.
    """
    owners: dict[Path, Path] = {}
    for clip in clips if (folder / "displacement").is_dir() else ():
        file = folder / "displacement" / f"{clip.name if clip.is_dir() else clip.stem}.npz"
        if file in owners:
            raise InputError(
                f"{file} could belong to {owners[file]} or to {clip}", "rename one of the clips"
            )
        if file.is_file():
            owners[file] = clip
    return {clip: file for file, clip in owners.items()}


def cached_displacement(
    file: Path,
    path: Path,
    crop: Crop | None,
    channels: int,
    cached: CachedFrames,
    cache_dir: Path | None = None,
) -> CachedDisplacement:
    """Decode a displacement file, frame by frame, or take what an earlier call decoded.

    Args:
        file: from :func:`find_displacements`.
        path, crop, channels, cache_dir: of the clip, as given to `cached_frames`.
        cached: its frames.

    Raises:
        InputError: see `open_displacement`.
        OutputError: see `cached_arrays`.
    """
    box = cached.letterbox
    quarter = box.size // 4
    shape = (len(cached.indices), quarter, quarter, 2)

    def write(stream: BinaryIO) -> None:
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
        kept = set(cached.indices.tolist())
        with open_displacement(file, len(cached.kept), (height, width), _CURE) as (inside, fields):
            write_header(stream, "<f4", shape)
            for index, field in enumerate(fields):
                if index in kept:
                    small = cv2.remap(
                        field, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                    )
                    stream.write(np.asarray(small * unit, "<f4").tobytes())
            levels = crop_image(np.where(inside, np.uint8(255), np.uint8(0)), region)
            whole = cv2.resize(box.place(levels), (quarter, quarter), interpolation=cv2.INTER_AREA)
            np.save(stream, whole == 255)

    def read(arrays: Arrays) -> CachedDisplacement | None:
        field, sector = arrays
        right = field.dtype == np.float32 and field.shape == shape
        if not right or sector.dtype != np.bool_ or sector.shape != shape[1:3]:
            return None
        return CachedDisplacement(field, np.array(sector))

    try:
        info = file.stat()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    own = [str(file.resolve()), info.st_size, info.st_mtime_ns]
    facts = [cache_facts(path, crop, box.size, channels), own]
    return cached_arrays(facts, write, read, cache_dir)
