"""Readers of what a phantom knows: displacement/<stem>.npz of a clip, truth/ of a prediction.

Arrays are read at the original frame's size and checked against their clip. Every complaint is an
InputError that names the file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....runtime.media.frames import Crop, Letterbox, letterbox
from ....runtime.media.video import open_source
from ....runtime.support.errors import InputError
from ....runtime.support.table import read_table, spelling_hint
from ...data.dataset import Clip
from ...data.displacement_file import open_displacement
from ..landmarks import Points
from ..metrics import FloatImage, Mask
from .fields import mask_in_model_frame, points_in_model_frame, to_model_frame

COLUMNS = ("pair", "source", "driving", "split")
PAIRS_HINT = "make them with `sonomime phantom -o DIR --subjects N --frames M --pairs P`"
_MAKE_AGAIN = "make the folder again with `sonomime phantom`"
_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)

Frames = NDArray[np.uint8]


class Field(NamedTuple):
    """The exact motion of one clip, in pixels of the model's frame."""

    displacement: FloatImage
    """(T, S, S, 2), from frame t to frame 0 (see `fields`)."""
    sector: Mask
    """(S, S): inside of the image sector; everywhere when the file has none."""


@dataclass(frozen=True)
class Pair:
    """A row of truth/pairs.csv: two clips, and where the truth of their prediction lies.

    Attributes:
        name: unique within its folder.
        source: the clip whose frame 0 is animated.
        driving: the clip that drives, relative to its frame 0.
        folder: truth/ of the dataset folder.
    """

    name: str
    source: Clip
    driving: Clip
    split: str
    folder: Path

    @property
    def video(self) -> Path:
        """The true prediction."""
        return self.folder / f"{self.name}.mkv"

    @property
    def other(self) -> Path:
        """The same states rendered with other scatterers."""
        return self.folder / f"{self.name}.other.mkv"

    @property
    def arrays(self) -> Path:
        """The exact field and keypoints."""
        return self.folder / f"{self.name}.npz"


@dataclass(frozen=True)
class PairData:
    """One pair as the model sees it, T frames of side S.

    Attributes:
        source: frame 0 of the source's clip (S, S[, 3]).
        driving, truth, other: (T, S, S[, 3]); no frame is dropped, so that they stay in step.
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
        InputError: no table, a malformed one, a pair given twice or of an unknown clip, a missing
            truth, no pair of the split.
    """
    table = folder / "truth" / "pairs.csv"
    if not table.is_file():
        raise InputError(
            f"{folder}: there is no truth/pairs.csv, so no prediction has a truth", PAIRS_HINT
        )
    known = {clip.name: clip for clip in clips}
    pairs: list[Pair] = []
    seen: dict[str, int] = {}
    for line, row in read_table(table, COLUMNS):
        where = f"{table}:{line}"
        name = row["pair"]
        if not name or Path(name).name != name:
            raise InputError(f"{where}: {name!r} cannot name a pair", "a pair's name names files")
        if (first := seen.setdefault(name, line)) != line:
            raise InputError(
                f"{where}: the pair {name!r} is given twice (first on line {first})", "keep one"
            )
        for role in ("source", "driving"):
            if row[role] not in known:
                raise InputError(
                    f"{where}: the pair {name!r} names the clip {row[role]!r}, which is not in "
                    f"clips.csv",
                    spelling_hint(row[role], known),
                )
        ends = (known[row["source"]], known[row["driving"]])
        pairs.append(Pair(name, *ends, row["split"], table.parent))
    if not pairs:
        raise InputError(f"{table}: names no pair", PAIRS_HINT)
    chosen = [pair for pair in pairs if split in (None, pair.split)]
    if not chosen:
        splits = ", ".join(sorted({pair.split for pair in pairs}))
        raise InputError(f"{table}: no pair of the split {split!r}", f"splits there: {splits}")
    for pair in chosen:
        for path in (pair.video, pair.other, pair.arrays):
            if not path.is_file():
                raise InputError(
                    f"{path}: is missing, the pair {pair.name!r} needs it", _MAKE_AGAIN
                )
    return chosen


def read_pair(pair: Pair, size: int, channels: int) -> PairData:
    """Decode a pair and its truth.

    Args:
        size: side of the square model frame, in pixels.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        InputError: a file that cannot be read; frames, fields or keypoints that differ in number.
    """
    crop = pair.source.crop
    still, box, shape = _read_frames(pair.source.path, crop, size, channels, at_most=1)
    driving, there, _ = _read_frames(pair.driving.path, pair.driving.crop, size, channels)
    count = len(driving)
    videos = []
    for path in (pair.video, pair.other):
        frames, place, _ = _read_frames(path, crop, size, channels)
        if len(frames) != count:
            raise InputError(
                f"{path}: has {len(frames)} frames where {pair.driving.name} has {count}",
                _MAKE_AGAIN,
            )
        if place != box:
            raise InputError(f"{path}: its frames differ in size from its source's", _MAKE_AGAIN)
        videos.append(frames)
    field = read_field(pair.arrays, count, shape, crop, box)
    arrays = _arrays(pair.arrays, ("keypoints", "keypoint_names"))
    names = tuple(str(name) for name in arrays["keypoint_names"].ravel())
    keypoints = arrays["keypoints"]
    if keypoints.shape != (count, len(names), 2) or not np.issubdtype(keypoints.dtype, np.floating):
        raise InputError(
            f"{pair.arrays}: keypoints is {keypoints.dtype} {keypoints.shape}, not float "
            f"{(count, len(names), 2)}",
            _MAKE_AGAIN,
        )
    points = points_in_model_frame(keypoints, crop, box)
    # The truth's frame 0 is the source's pose: where the source has no labels, it has them.
    start = _labels(pair.source, names, points[0], box)
    reference = _labels(pair.driving, names, np.full_like(start, np.nan), there)
    return PairData(pair, still[0], driving, *videos, field, points, start, reference, names)


def read_field(
    path: Path, count: int, shape: tuple[int, int], crop: Crop | None, box: Letterbox
) -> Field:
    """The exact motion of a clip.

    Args:
        path: `Clip.displacement`, or `Pair.arrays`.
        count: how many frames the clip has, repeated ones too.
        shape: (H, W) of its frames, not cropped.
        crop, box: where the model's frame lies in them.

    Raises:
        InputError: the file cannot be read, or is of another size than the clip; nothing of the
            sector is in the model's frame.
    """
    displacement = np.empty((count, box.size, box.size, 2), np.float32)
    with open_displacement(path, count, shape, _MAKE_AGAIN) as (inside, fields):
        for t, field in enumerate(fields):
            displacement[t] = to_model_frame(field, crop, box)
    sector = mask_in_model_frame(inside, crop, box)
    if not sector.any():
        cropped = "" if crop is None else " inside of the crop"
        raise InputError(f"{path}: the sector is empty{cropped}", _MAKE_AGAIN)
    return Field(displacement, sector)


def _labels(clip: Clip, names: Sequence[str], otherwise: Points, box: Letterbox) -> Points:
    """The labels of a clip's frame 0, (P, 2) pixels of the model's frame."""
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
    with open_source(path, None, channels) as whole:
        width, height = whole.size
    with open_source(path, crop, channels) as source:
        for _, _, image in source:
            frame, box = letterbox(image, size)
            frames.append(frame)
            if at_most is not None and len(frames) == at_most:
                break
    if not frames:
        raise InputError(f"{path} has no frames", "check that it plays")
    return np.stack(frames), box, (height, width)


def _arrays(path: Path, names: Sequence[str]) -> Mapping[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            if not missing:
                return {name: archive[name] for name in names}
    except _DAMAGE as error:
        raise InputError(f"{path}: cannot be read ({error})", _MAKE_AGAIN) from error
    raise InputError(f"{path}: holds no array named {missing[0]!r}", _MAKE_AGAIN)
