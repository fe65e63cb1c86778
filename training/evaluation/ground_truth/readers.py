"""Readers of a phantom's ground truth: displacement/<stem>.npz of a clip, truth/ of a prediction.

Every error is an InputError that names the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....runtime.media.frames import Crop, Letterbox, letterbox
from ....runtime.media.video import open_source
from ....runtime.support.errors import InputError
from ....runtime.support.table import read_table, spelling_hint
from ...data.dataset import Clip, ClipFrames
from ...data.displacement_file import read_fields, read_sector
from ...data.frame_cache import cached_frames
from ..landmarks import Points
from ..metrics import FloatImage, Mask
from .fields import mask_in_model_frame, points_in_model_frame, to_model_frame

COLUMNS = ("pair", "source", "driving", "split")
_PAIRS_HINT = "make them with `sonomime phantom -o DIR --subjects N --frames M --pairs P`"
MAKE_AGAIN = "make the folder again with `sonomime phantom`"
_MOST_BYTES = 1 << 26  # of an array that is read whole

Frames = NDArray[np.uint8]


class Field(NamedTuple):
    """The exact motion of one clip, in pixels of the model's frame.

    Attributes:
        displacement: (T, S, S, 2), from frame t to frame 0 (see `fields`).
        sector: (S, S): inside of the image sector; everywhere when the file has none.
    """

    displacement: FloatImage
    sector: Mask


@dataclass(frozen=True)
class Pair:
    """A row of truth/pairs.csv.

    Attributes:
        source: the clip whose frame 0 is animated.
        driving: the clip that drives, relative to its frame 0.
        folder: truth/ of the dataset folder.
    """

    name: str
    source: Clip
    driving: Clip
    split: str
    folder: Path

    def file(self, ending: str) -> Path:
        """`.mkv`: the true prediction; `.other.mkv`: the same with other scatterers; `.npz`: the
        exact field and keypoints."""
        return self.folder / f"{self.name}{ending}"


@dataclass(frozen=True)
class PairData:
    """One pair as the model sees it, T frames of side S.

    Attributes:
        source: frame 0 of the source's clip (S, S[, 3]).
        driving, truth, other: (T, S, S[, 3]), repeated frames too.
        field: exact motion from truth frame t to the source.
        keypoints: (T, P, 2), pixels of the model's frame; `names` are the P names.
        start: (P, 2), the keypoints of the source still.
        reference: (P, 2), those of the driving clip's frame 0, nan where it has no label.
    """

    pair: Pair
    source: Frames
    driving: Frames
    truth: Frames
    other: Frames
    field: Field
    keypoints: Points
    start: Points
    reference: Points
    names: tuple[str, ...]


def read_pairs(folder: Path, clips: Sequence[Clip], split: str | None) -> list[Pair]:
    """The rows of truth/pairs.csv of a dataset folder whose files are all there.

    Args:
        clips: every clip of the folder, named as in its clips.csv.
        split: keep this split only.

    Raises:
        InputError: no table, a wrong row, a missing file, no pair of the split.
    """
    table = folder / "truth" / "pairs.csv"
    if not table.is_file():
        raise InputError(f"{folder}: there is no truth/pairs.csv", _PAIRS_HINT)
    known = {clip.name: clip for clip in clips}
    pairs: dict[str, Pair] = {}
    for line, row in read_table(table, COLUMNS):
        where = f"{table}:{line}"
        name = row["pair"]
        if not name or Path(name).name != name:
            raise InputError(f"{where}: {name!r} cannot name a pair", "a pair's name names files")
        if name in pairs:
            raise InputError(f"{where}: the pair {name!r} is given twice", "keep one")
        for role in ("source", "driving"):
            if row[role] not in known:
                raise InputError(
                    f"{where}: the clip {row[role]!r} is not in clips.csv",
                    spelling_hint(row[role], known),
                )
        ends = known[row["source"]], known[row["driving"]]
        pairs[name] = Pair(name, *ends, row["split"], table.parent)
    if not pairs:
        raise InputError(f"{table}: names no pair", _PAIRS_HINT)
    chosen = [pair for pair in pairs.values() if split in (None, pair.split)]
    if not chosen:
        splits = ", ".join(sorted({pair.split for pair in pairs.values()}))
        raise InputError(f"{table}: no pair of the split {split!r}", f"splits there: {splits}")
    for pair in chosen:
        for path in map(pair.file, (".mkv", ".other.mkv", ".npz")):
            if not path.is_file():
                raise InputError(f"{path}: is missing", MAKE_AGAIN)
    return chosen


def read_pair(pair: Pair, size: int, channels: int) -> PairData:
    """Decode a pair and its truth, as a model of this frame size and these channels sees it.

    Raises:
        InputError: a file that cannot be read; frames, fields or keypoints that differ in number.
    """
    crop = pair.source.crop
    still, box, shape = _read_frames(pair.source.path, crop, size, channels, at_most=1)
    driving, there, _ = _read_frames(pair.driving.path, pair.driving.crop, size, channels)
    count = len(driving)
    videos = []
    for path in (pair.file(".mkv"), pair.file(".other.mkv")):
        frames, place, _ = _read_frames(path, crop, size, channels)
        if len(frames) != count:
            raise InputError(
                f"{path}: has {len(frames)} frames where {pair.driving.name} has {count}",
                MAKE_AGAIN,
            )
        if place != box:
            raise InputError(f"{path}: its frames differ in size from its source's", MAKE_AGAIN)
        videos.append(frames)
    arrays = pair.file(".npz")
    field = read_field(arrays, count, shape, crop, box)
    names, keypoints = _read_keypoints(arrays, count)
    points = points_in_model_frame(keypoints, crop, box)
    # The truth's frame 0 is the source's pose: where the source has no labels, it has them.
    start = _labels(pair.source, names, points[0], box)
    reference = _labels(pair.driving, names, np.full_like(start, np.nan), there)
    return PairData(pair, still[0], driving, *videos, field, points, start, reference, names)


def read_clip_field(path: Path, frames: ClipFrames) -> Field:
    """The exact motion of a clip, from its `Clip.displacement`; of repeated frames too.

    Raises:
        InputError: as `read_field`.
    """
    clip, box = frames.clip, frames.letterbox
    channels = 1 if frames.frames.ndim == 3 else frames.frames.shape[3]
    count = len(cached_frames(clip.path, clip.crop, box.size, channels).kept)
    with open_source(clip.path) as source:
        width, height = source.size
    return read_field(path, count, (height, width), clip.crop, box)


def read_field(
    path: Path, count: int, shape: tuple[int, int], crop: Crop | None, box: Letterbox
) -> Field:
    """The exact motion in a .npz file, of `count` frames of `shape` (H, W), not cropped.

    Args:
        crop, box: where the model's frame lies in them.

    Raises:
        InputError: the file cannot be read, or has another size; the sector is empty.
    """
    displacement = np.empty((count, box.size, box.size, 2), np.float32)
    sector = mask_in_model_frame(read_sector(path, shape, MAKE_AGAIN), crop, box)
    for t, field in enumerate(read_fields(path, count, shape, MAKE_AGAIN)):
        displacement[t] = to_model_frame(field, crop, box)
    if not sector.any():
        cropped = "" if crop is None else " inside of the crop"
        raise InputError(f"{path}: the sector is empty{cropped}", MAKE_AGAIN)
    return Field(displacement, sector)


def _labels(clip: Clip, names: Sequence[str], otherwise: Points, box: Letterbox) -> Points:
    """The labels of a clip's frame 0, (P, 2) pixels of the model's frame; else `otherwise`."""
    labels = clip.keypoints.get(0, {})
    points = otherwise.copy()
    for i, name in enumerate(names):
        if name in labels:
            points[i] = points_in_model_frame(np.array(labels[name]), clip.crop, box)
    return points


def _read_frames(
    path: Path, crop: Crop | None, size: int, channels: int, at_most: int | None = None
) -> tuple[Frames, Letterbox, tuple[int, int]]:
    """Every frame, repeats too, letterboxed; where it lies; (H, W) of the whole original frame."""
    frames: list[Frames] = []
    with open_source(path) as whole:
        width, height = whole.size
    with open_source(path, crop, channels) as source:
        for _, _, image in islice(source, at_most):
            frame, box = letterbox(image, size)
            frames.append(frame)
    return np.stack(frames), box, (height, width)


def _read_keypoints(path: Path, count: int) -> tuple[tuple[str, ...], NDArray[np.floating]]:
    """Names, and their places (count, P, 2) in the original frame."""
    try:
        with zipfile.ZipFile(path) as archive:
            labels, keypoints = (_array(archive, name) for name in ("keypoint_names", "keypoints"))
        if labels.dtype.kind != "U" or labels.ndim != 1:
            raise ValueError("keypoint_names is not a list of names")
        expected = (count, len(labels), 2)
        if keypoints.shape != expected or keypoints.dtype.kind != "f":
            raise ValueError(f"keypoints is {keypoints.dtype} {keypoints.shape}, not {expected}")
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damage
        raise InputError(f"{path}: cannot be read ({error})", MAKE_AGAIN) from error
    return tuple(labels.tolist()), keypoints


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One small array."""
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no array {name!r}")
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > _MOST_BYTES:
        raise ValueError(f"{name} has {member.file_size} bytes, which is too many")
    with archive.open(member) as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
