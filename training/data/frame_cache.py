"""Clips decoded once: cropped, letterboxed, without repeats, kept as memory-mapped uint8 arrays.

Screen recordings repeat up to 60 % of their frames. A frame is a repeat when it differs from the
last frame that was KEPT (not from its neighbour: slow motion must not vanish) by at most
REPEAT_LEVELS grey levels on average, over the cropped image resized to 256 x 256, so that the
answer does not depend on the model's size or on padding.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox, letterbox, to_channels
from ...runtime.media.video import frame_files, open_source
from ...runtime.support.atomic_files import atomic_path, atomic_write_text, cache_folder
from ...runtime.support.errors import InputError

_VERSION = 2  # of the entries
REPEAT_LEVELS = 0.18
_COMPARE_SIZE = 256


@dataclass(frozen=True)
class CachedFrames:
    """The frames of one clip as a model sees them.

    Attributes:
        frames: uint8 (T, size, size) or (T, size, size, 3), memory-mapped.
        indices: int64 (T,), each frame's number in the file (repeats are missing).
        kept: int64 (N,), for each of the N decoded frames the t that stands for it: its own, or
            that of the frame it repeats.
        letterbox: where the cropped image lies in the frame.
    """

    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    kept: NDArray[np.int64]
    letterbox: Letterbox


def default_cache_dir() -> Path:
    """Where decoded clips are kept: ``$XDG_CACHE_HOME/sonomime/clips``."""
    return cache_folder() / "clips"


def cached_frames(
    path: Path, crop: Crop | None, size: int, channels: int, cache_dir: Path | None = None
) -> CachedFrames:
    """Decode a video or a folder of frames, or take what an earlier call decoded.

    The cache's key is path, size and modification time (of every frame, for a folder), crop, size
    and channels. The array appears last and whole, so that a cache entry is either complete or not
    there.

    Raises:
        InputError: what :func:`open_source` says of a clip that it cannot read.
        OutputError: the cache cannot be written.
    """
    key = cache_key(path, crop, size, channels)
    folder = default_cache_dir() if cache_dir is None else cache_dir
    array, facts = folder / f"{key}.npy", folder / f"{key}.json"
    found = _open(array, facts)
    if found is None:
        _decode(path, crop, size, channels, array, facts)
        found = _open(array, facts)
        if found is None:
            raise InputError(
                f"{array}: the cache entry just written cannot be read", f"remove {folder}"
            )
    return found


def cache_key(path: Path, crop: Crop | None, size: int, channels: int) -> str:
    """What the cache's files of a clip are named by; InputError where it cannot be read."""
    try:
        files = frame_files(path) if path.is_dir() else [path]
        stats = [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    facts = [_VERSION, REPEAT_LEVELS, str(path.resolve()), stats, crop, size, channels]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _open(array: Path, facts: Path) -> CachedFrames | None:
    """The cache entry, or None where there is none that can be used."""
    try:
        frames = np.load(array, mmap_mode="r", allow_pickle=False)
        table: dict[str, Any] = json.loads(facts.read_text(encoding="utf-8"))
        entry = CachedFrames(
            frames,
            np.array(table["indices"], np.int64),
            np.array(table["kept"], np.int64),
            Letterbox(**table["letterbox"]),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        return None
    whole = frames.dtype == np.uint8 and len(frames) == len(entry.indices) > 0
    return entry if whole else None


def _decode(
    path: Path, crop: Crop | None, size: int, channels: int, array: Path, facts: Path
) -> None:
    indices: list[int] = []
    kept: list[int] = []
    place: Letterbox | None = None
    last: NDArray[np.int16] | None = None
    shape = (size, size) if channels == 1 else (size, size, 3)
    with (
        open_source(path, crop, channels) as source,
        atomic_path(array) as temporary,
        temporary.open("wb") as stream,
    ):
        start = _write_header(stream, 0, shape)
        for index, _, image in source:
            small = _small(image)
            if last is None or np.abs(small - last).mean() > REPEAT_LEVELS:
                frame, place = letterbox(image, size)
                stream.write(frame.tobytes())
                indices.append(index)
                last = small
            kept.append(len(indices) - 1)
        if place is None:
            raise InputError(f"{path} has no frames", "check that it plays")
        stream.seek(0)
        if _write_header(stream, len(indices), shape) != start:
            raise InputError(f"{path} has too many frames", "cut it into shorter clips")
        table = {"indices": indices, "kept": kept, "letterbox": vars(place)}
        atomic_write_text(facts, json.dumps(table))


def _write_header(stream: Any, count: int, shape: tuple[int, ...]) -> int:
    # numpy pads the header so that the first axis may grow in place: the frames can be streamed.
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
    )
    return int(stream.tell())


def _small(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    import cv2

    square = (_COMPARE_SIZE, _COMPARE_SIZE)
    small = cv2.resize(to_channels(image, 1), square, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.int16)
