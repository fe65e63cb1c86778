"""Exact displacement fields beside a dataset's clips: found, decoded once, kept small.

``displacement/<stem of the clip's file>.npz`` in a dataset folder is a clip's (its arrays:
`displacement_file`). What training needs of it, a quarter of the model's size, lies in the cache of
decoded clips.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox, crop_image
from ...runtime.media.video import open_source
from ...runtime.support.atomic_files import atomic_path
from ...runtime.support.errors import InputError
from .displacement_file import open_displacement
from .frame_cache import CachedFrames, cache_key, default_cache_dir

_VERSION = 1  # of the entries
_CURE = "make the file again, or remove it: training then measures the flow of this clip"


class CachedDisplacement(NamedTuple):
    """The displacement of a clip's kept frames.

    Attributes:
        field: float32 (T, size/4, size/4, 2), memory-mapped: half_pixel points of the letterboxed
            frame, xy, from each frame to the file's first.
        sector: bool (size/4, size/4), cells that lie wholly inside of the sector and the picture.
    """

    field: NDArray[np.float32]
    sector: NDArray[np.bool_]


def find_displacements(folder: Path, clips: Sequence[Path]) -> dict[Path, Path]:
    """The displacement file of each clip of a dataset folder that has one.

    Raises:
        InputError: two clips would share one.
    """
    home = folder / "displacement"
    found: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    if not home.is_dir():
        return found
    for clip in clips:
        file = home / f"{clip.name if clip.is_dir() else clip.stem}.npz"
        if not file.is_file():
            continue
        if file in owner:
            raise InputError(
                f"{file} could belong to {owner[file]} or to {clip}", "rename one of the clips"
            )
        found[clip] = file
        owner[file] = clip
    return found


def cached_displacement(
    file: Path,
    path: Path,
    crop: Crop | None,
    size: int,
    channels: int,
    cached: CachedFrames,
    cache_dir: Path | None = None,
) -> CachedDisplacement:
    """Decode a displacement file, frame by frame, or take what an earlier call decoded.

    The cache's key is that of the clip's frames, and path, size and modification time of the file.

    Args:
        file: from :func:`find_displacements`.
        path, crop, size, channels, cache_dir: as of the frames.
        cached: the frames.

    Raises:
        InputError: naming the file: damaged, of another size or number of frames than the clip, not
            finite.
        OutputError: the cache cannot be written.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from error
    facts = [_VERSION, str(file.resolve()), stat.st_size, stat.st_mtime_ns]
    frames = cache_key(path, crop, size, channels)
    key = hashlib.sha256(json.dumps([frames, facts]).encode()).hexdigest()[:32]
    folder = default_cache_dir() if cache_dir is None else cache_dir
    array, mask = folder / f"{key}.displacement.npy", folder / f"{key}.sector.npy"
    shape = (len(cached.indices), size // 4, size // 4, 2)
    found = _open(array, mask, shape)
    if found is None:
        _decode(file, path, crop, cached, array, mask)
        found = _open(array, mask, shape)
        if found is None:
            raise InputError(
                f"{array}: the cache entry just written cannot be read", f"remove {folder}"
            )
    return found


def _open(array: Path, mask: Path, shape: tuple[int, ...]) -> CachedDisplacement | None:
    """The cache entry, or None where there is none that can be used."""
    try:
        field = np.load(array, mmap_mode="r", allow_pickle=False)
        sector = np.load(mask, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = field.dtype == np.float32 and field.shape == shape
    usable = whole and sector.dtype == np.bool_ and sector.shape == shape[1:3]
    return CachedDisplacement(field, sector) if usable else None


def _decode(
    file: Path, path: Path, crop: Crop | None, cached: CachedFrames, array: Path, mask: Path
) -> None:
    box = cached.letterbox
    # The letterbox knows the picture after the crop, the file speaks of that before it.
    width, height = open_source(path, None, 1).size
    count, quarter = len(cached.kept), box.size // 4
    at_x, at_y = _places(box, crop, quarter)
    # From pixels of the original to half_pixel points of the square.
    unit = np.array([box.w / box.width, box.h / box.height], np.float32) * np.float32(2 / box.size)
    kept = iter([*cached.indices.tolist(), -1])
    with (
        open_displacement(file, count, (height, width), _CURE) as (inside, fields),
        atomic_path(array) as temporary,
        temporary.open("wb") as stream,
    ):
        with atomic_path(mask) as small:
            np.save(small, _whole_cells(inside, crop, box), allow_pickle=False)
        np.lib.format.write_array_header_1_0(
            stream,
            {
                "descr": "<f4",
                "fortran_order": False,
                "shape": (len(cached.indices), quarter, quarter, 2),
            },
        )
        wanted = next(kept)
        for index, field in enumerate(fields):
            if index == wanted:
                small_field = cv2.remap(
                    field, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
                )
                stream.write(np.asarray(small_field * unit, "<f4").tobytes())
                wanted = next(kept)


def _places(
    box: Letterbox, crop: Crop | None, quarter: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Where the centres of the quarter-size cells lie in the original, in pixels."""
    line = np.arange(quarter) * 4 + 1.5
    centres = np.stack(np.meshgrid(line, line), axis=-1)
    pixels = box.to_picture(centres) + (np.array([crop.x, crop.y]) if crop is not None else 0)
    x, y = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    return x, y


def _whole_cells(inside: NDArray[np.bool_], crop: Crop | None, box: Letterbox) -> NDArray[np.bool_]:
    """The quarter-size cells that lie wholly inside of a mask of the original."""
    levels = np.where(inside, np.uint8(255), np.uint8(0))
    square = box.place(crop_image(levels, crop) if crop is not None else levels)
    quarter = box.size // 4
    whole = cv2.resize(square, (quarter, quarter), interpolation=cv2.INTER_AREA)
    return np.asarray(whole == 255)
