"""Readers of a phantom's ground truth: displacement/<stem>.npz of a clip, truth/ of a prediction.

Every error is an InputError that names the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ....runtime.media.frames import Crop, Letterbox, letterbox
from ....runtime.media.video import open_source
from ....runtime.support.errors import InputError
from ....runtime.support.table import read_table, spelling_hint
from ...data.clip_frames import ClipFrames
from ...data.dataset import Clip
from ...data.displacement_file import read_fields, read_sector
from ..loop import Case, Points
from ..metrics import FloatImage, Mask
from .fields import mask_in_model_frame, points_in_model_frame, to_model_frame

COLUMNS = ("pair", "source", "driving", "split")
_PAIRS_HINT = "make them with `sonomime phantom -o DIR --subjects N --frames M --pairs P`"
MAKE_AGAIN = "make the folder again with `sonomime phantom`"
_MOST_BYTES = 1 << 26  # of an array that is read whole

Frames = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """A row of truth/pairs.csv."""

    name: str
    source: Clip  # its frame 0 is animated
    driving: Clip  # relative to its frame 0
    split: str
    folder: Path  # truth/ of the dataset folder

    def file(self, ending: str) -> Path:
        """`.mkv`: the true prediction; `.other.mkv`: the same with other scatterers; `.npz`: the
        exact field and keypoints."""
        return self.folder / f"{self.name}{ending}"


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
        for clip in (row["source"], row["driving"]):
            if clip not in known:
                fault = f"{where}: the clip {clip!r} is not in clips.csv"
                raise InputError(fault, spelling_hint(clip, known))
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


def read_pair(pair: Pair, size: int, channels: int) -> Case:
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
            fault = f"has {len(frames)} frames where {pair.driving.name} has {count}"
            raise InputError(f"{path}: {fault}", MAKE_AGAIN)
        if place != box:
            raise InputError(f"{path}: its frames differ in size from its source's", MAKE_AGAIN)
        videos.append(frames)
    displacement, sector = read_field(pair.file(".npz"), count, shape, crop, box)
    names, keypoints = _read_keypoints(pair.file(".npz"), count)
    points = points_in_model_frame(keypoints, crop, box)
    everywhere = np.ones_like(sector)  # the field is exact even where the source ends
    # The truth's frame 0 is the source's pose: where the source has no labels, it has them.
    start = _labels(pair.source, names, points[0], box)
    return Case(
        source=still[0],
        middle=0,
        driving=driving,
        truth=videos[0],
        mask=sector,
        names=names,
        start=start,
        points=points,
        flow=lambda t: (displacement[t], everywhere),
        sector=sector,
        other=videos[1],
        reference=_labels(pair.driving, names, np.full_like(start, np.nan), there),
    )


def read_clip_field(path: Path, frames: ClipFrames) -> tuple[FloatImage, Mask]:
    """`read_field` of a clip's `Clip.displacement`; of repeated frames too."""
    width, height = open_source(frames.clip.path).size
    return read_field(path, frames.decoded, (height, width), frames.clip.crop, frames.letterbox)


def read_field(
    path: Path, count: int, shape: tuple[int, int], crop: Crop | None, box: Letterbox
) -> tuple[FloatImage, Mask]:
    """The exact motion in a .npz file, of `count` frames of `shape` (H, W), not cropped.

    Args:
        crop, box: where the model's frame lies in them.

    Returns:
        displacement (T, S, S, 2) in pixels of the model's frame, from frame t to frame 0 (see
        `fields`); sector (S, S): inside of the image sector, everywhere when the file has none.

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
    return displacement, sector


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
    width, height = open_source(path).size
    images = islice(open_source(path, crop, channels), at_most)
    frames, boxes = zip(*(letterbox(image, size) for _, _, image in images), strict=True)
    return np.stack(frames), boxes[0], (height, width)


def _read_keypoints(path: Path, count: int) -> tuple[tuple[str, ...], NDArray[np.floating]]:
    """Names, and their places (count, P, 2) in the original frame."""
    try:
        with np.load(path) as archive:
            for name in ("keypoint_names", "keypoints"):
                if (length := archive.zip.getinfo(f"{name}.npy").file_size) > _MOST_BYTES:
                    raise ValueError(f"{name} has {length} bytes, which is too many")
            labels, keypoints = archive["keypoint_names"], archive["keypoints"]
        if labels.dtype.kind != "U" or labels.ndim != 1:
            raise ValueError("keypoint_names is not a list of names")
        expected = (count, len(labels), 2)
        if keypoints.shape != expected or keypoints.dtype.kind != "f":
            raise ValueError(f"keypoints is {keypoints.dtype} {keypoints.shape}, not {expected}")
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damage
        raise InputError(f"{path}: cannot be read ({error})", MAKE_AGAIN) from error
    return tuple(labels.tolist()), keypoints
