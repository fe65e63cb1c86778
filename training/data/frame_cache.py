"""Clips decoded once: cropped, letterboxed, without repeats, as memory-mapped uint8 arrays.

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

from ...runtime.media.frames import Crop, Letterbox, letterbox, to_channels
from ...runtime.media.video import frame_files, open_source
from ...runtime.support.errors import InputError
from .array_cache import Arrays, cached_arrays

_VERSION = 3  # of the entries
REPEAT_LEVELS = 0.18
_COMPARE_SIZE = 256


class CachedFrames(NamedTuple):
    """The frames of one clip as a model sees them."""

    frames: NDArray[np.uint8]  # (T, size, size) or (T, size, size, 3), memory-mapped
    indices: NDArray[np.int64]  # (T,), each frame's number in the file (repeats are missing)
    kept: NDArray[np.int64]  # (N,), for each decoded frame the t of itself or of what it repeats
    letterbox: Letterbox  # where the cropped image lies in the frame


def cached_frames(
    path: Path, crop: Crop | None, size: int, channels: int, cache_dir: Path | None = None
) -> CachedFrames:
    """Decode a video or a folder of frames, or take what an earlier call decoded.

    Raises:
        InputError: what :func:`open_source` says of a clip that it cannot read.
        OutputError: see `cached_arrays`.
    """
    shape = (size, size) if channels == 1 else (size, size, 3)

    def write(stream: BinaryIO) -> None:
        kept: list[int] = []
        count, last = 0, None
        with open_source(path, crop, channels) as source:
            start = write_header(stream, "|u1", (0, *shape))
            for _, _, image in source:
                grey, square = to_channels(image, 1), (_COMPARE_SIZE, _COMPARE_SIZE)
                small = cv2.resize(grey, square, interpolation=cv2.INTER_AREA).astype(np.int16)
                if last is None or np.abs(small - last).mean() > REPEAT_LEVELS:
                    frame, box = letterbox(image, size)
                    stream.write(frame.tobytes())
                    count += 1
                    last = small
                kept.append(count - 1)
        if not kept:
            raise InputError(f"{path} has no frames", "check that it plays")
        stream.seek(0)
        # numpy pads the header so that the first axis may grow in place.
        if write_header(stream, "|u1", (count, *shape)) != start:
            raise InputError(f"{path} has too many frames", "cut it into shorter clips")
        stream.seek(0, 2)
        np.save(stream, np.array(kept, np.int64))
        np.save(stream, np.array([box.width, box.height], np.int64))

    def read(arrays: Arrays) -> CachedFrames | None:
        frames, kept, picture = arrays
        right = frames.dtype == np.uint8 and frames.shape[1:] == shape
        if not right or kept.dtype != np.int64 or kept.ndim != 1 or picture.shape != (2,):
            return None
        new = np.diff(kept, prepend=-1)
        if not np.isin(new, (0, 1)).all() or kept[-1] != len(frames) - 1 or kept[0] != 0:
            return None
        box = Letterbox.fit(int(picture[0]), int(picture[1]), size)
        return CachedFrames(frames, np.flatnonzero(new), np.array(kept), box)

    return cached_arrays(cache_facts(path, crop, size, channels), write, read, cache_dir)


def cache_facts(path: Path, crop: Crop | None, size: int, channels: int) -> list[object]:
    """All that the frames depend on; of every file its size and modification time.

    Raises:
        InputError: the clip cannot be read.
    """
    try:
        files = frame_files(path) if path.is_dir() else [path]
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return [_VERSION, REPEAT_LEVELS, str(path.resolve()), stats, crop, size, channels]


def write_header(stream: BinaryIO, kind: str, shape: tuple[int, ...]) -> int:
    """Begin an array whose values follow; how many bytes that took."""
    start = stream.tell()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.tell() - start
