"""A phantom's ground truth: displacement/<stem>.npz of a clip, truth/ of a prediction.

A field D_t is float32 (H, W, 2), xy in pixels: tissue seen at x in frame t is at x + D_t(x) in the
clip's frame 0. A flow F(x->S) is one between two frames: frame(x) is S(x + F(x)). Every error is an
InputError that names the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox, letterbox
from ...runtime.readers.open_source import open_source
from ...runtime.readers.reading import Reading
from ...runtime.support.errors import InputError
from ...runtime.support.table import read_table, spelling_hint
from ..data.clip_frames import ClipFrames
from ..data.dataset import Clip
from ..data.displacement_file import read_fields, read_sector
from ..data.flow import same_tissue
from .loop import Case, Picture, Points
from .metrics import FloatImage, Mask, length, pixel_grid, read_at

_PAIRS_HINT = "make them with `sonomime phantom -o DIR --subjects N --frames M --pairs P`"
MAKE_AGAIN = "make the folder again with `sonomime phantom`"
_MOST_BYTES = 1 << 26  # of an array that is read whole
TOLERANCE = 0.01  # pixels: a place counts as found when it misses the tissue by less
_ROUNDS, _LONGEST = 24, 4.0  # |slope| reaches 8 in a phantom: many rounds, short steps (pixels)


def flow_between(driving: FloatImage, source: FloatImage) -> tuple[FloatImage, Mask]:
    """F(x->S) from the fields D_d and D_s (H, W, 2) of a driving frame and a source frame.

    Returns:
        y - x (H, W, 2) with y + D_s(y) = x + D_d(x), and where it is found to within TOLERANCE
        inside of the source frame (H, W).
    """
    height, width = driving.shape[:2]
    grid = pixel_grid(height, width).reshape(-1, 2).astype(np.float64)
    target = grid + driving.reshape(-1, 2)
    y, found = same_tissue(source.astype(np.float64), target, grid, TOLERANCE, _ROUNDS, _LONGEST)
    found &= ((y >= 0) & (y <= (width - 1, height - 1))).all(axis=1)
    return (y - grid).astype(np.float32).reshape(driving.shape), found.reshape(height, width)


def carried(flow: FloatImage, points: Points) -> tuple[Points, Mask]:
    """Where a frame shows points (N, 2) of the source: z with z + F(z) = p.

    Returns:
        z (N, 2), and where it is found inside of the frame to within TOLERANCE (N,); elsewhere z is
        the pixel that reads nearest to the point.
    """
    height, width = flow.shape[:2]
    field = flow.astype(np.float64)
    z, found = same_tissue(field, points, points, TOLERANCE, _ROUNDS, _LONGEST)
    found &= ((z >= -0.5) & (z <= (width - 0.5, height - 0.5))).all(axis=1)
    for i in np.flatnonzero(~found):
        miss = length(pixel_grid(height, width) + flow - points[i].astype(np.float32))
        z[i] = np.unravel_index(np.argmin(miss), miss.shape)[::-1]
    return z, found


@dataclass(frozen=True)
class Pair:
    """A row of truth/pairs.csv."""

    name: str
    source: Clip  # its frame 0 is animated
    driving: Clip  # relative to its frame 0
    split: str
    folder: Path  # truth/ of the dataset folder

    def files(self) -> list[Path]:
        """The true prediction, the same with other scatterers, the exact field and keypoints."""
        return [self.folder / f"{self.name}{end}" for end in (".mkv", ".other.mkv", ".npz")]


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
    for line, row in read_table(table, ("pair", "source", "driving", "split")):
        where, name = f"{table}:{line}", row["pair"]
        if not name or Path(name).name != name:
            raise InputError(f"{where}: {name!r} cannot name a pair", "a pair's name names files")
        if name in pairs:
            raise InputError(f"{where}: the pair {name!r} is given twice", "keep one")
        ends = row["source"], row["driving"]
        for clip in ends:
            if clip not in known:
                fault = f"{where}: the clip {clip!r} is not in clips.csv"
                raise InputError(fault, spelling_hint(clip, known))
        pairs[name] = Pair(name, *(known[clip] for clip in ends), row["split"], table.parent)
    if not pairs:
        raise InputError(f"{table}: names no pair", _PAIRS_HINT)
    chosen = [pair for pair in pairs.values() if split in (None, pair.split)]
    if not chosen:
        splits = ", ".join(sorted({pair.split for pair in pairs.values()}))
        raise InputError(f"{table}: no pair of the split {split!r}", f"splits there: {splits}")
    for path in (path for pair in chosen for path in pair.files()):
        if not path.is_file():
            raise InputError(f"{path}: is missing", MAKE_AGAIN)
    return chosen


def read_pair(pair: Pair, size: int, channels: int) -> Case:
    """Decode a pair and its truth, as a model of this frame size and these channels sees it.

    Raises:
        InputError: a file that cannot be read; frames, fields or keypoints that differ in number.
    """
    if "auto" in (pair.source.crop, pair.driving.crop):
        fault = f"the pair {pair.name} cannot be cropped by auto: its true motion is of the whole"
        raise InputError(fault, "give the crop in pixels, or none: phantoms need none")
    crop, (*paths, arrays) = pair.source.crop, pair.files()
    still, box, shape = _read_frames(pair.source.path, crop, size, channels, at_most=1)
    driving, there, _ = _read_frames(pair.driving.path, pair.driving.crop, size, channels)
    count, videos = len(driving), []
    for path in paths:
        frames, place, _ = _read_frames(path, crop, size, channels)
        if len(frames) != count:
            fault = f"has {len(frames)} frames where {pair.driving.name} has {count}"
            raise InputError(f"{path}: {fault}", MAKE_AGAIN)
        if place != box:
            raise InputError(f"{path}: its frames differ in size from its source's", MAKE_AGAIN)
        videos.append(frames)
    displacement, sector = read_field(arrays, count, shape, crop, box)
    names, keypoints = _read_keypoints(arrays, count)
    points = _in_model_frame(keypoints, crop, box)
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
    width, height = open_source(frames.clip.path).facts.stored
    return read_field(path, frames.decoded, (height, width), frames.clip.crop, frames.letterbox)


def read_field(
    path: Path, count: int, shape: tuple[int, int], crop: Crop | None, box: Letterbox
) -> tuple[FloatImage, Mask]:
    """The exact motion in a .npz file, of `count` frames of `shape` (H, W), not cropped.

    Args:
        crop, box: where the model's frame lies in them.

    Returns:
        displacement D (T, S, S, 2) in the model's frame, zero in the padding; sector (S, S): inside
        of the image sector, everywhere but in the padding when the file has none.

    Raises:
        InputError: the file cannot be read, or has another size; the sector is empty.
    """
    picture = box.to_picture(pixel_grid(box.size, box.size))
    inside = ((picture >= -0.5) & (picture <= np.array([box.width, box.height]) - 0.5)).all(-1)
    at = (picture + (crop or (0, 0))[:2]).astype(np.float32)  # in the original frame
    sector = inside & (read_at(read_sector(path, shape, MAKE_AGAIN).astype(np.float32), at) > 0.5)
    scale = np.array([box.w / box.width, box.h / box.height], np.float32)
    displacement = np.zeros((count, box.size, box.size, 2), np.float32)
    for t, field in enumerate(read_fields(path, count, shape, MAKE_AGAIN)):
        displacement[t, inside] = (read_at(field, at, cv2.BORDER_REPLICATE) * scale)[inside]
    if not sector.any():
        cropped = "" if crop is None else " inside of the crop"
        raise InputError(f"{path}: the sector is empty{cropped}", MAKE_AGAIN)
    return displacement, sector


def _in_model_frame(points: NDArray[np.floating], crop: Crop | None, box: Letterbox) -> Points:
    """Pixels (..., 2) of the original frame as pixels of the model's frame."""
    return box.to_square(np.asarray(points, np.float64) - (crop or (0, 0))[:2])


def _labels(clip: Clip, names: Sequence[str], otherwise: Points, box: Letterbox) -> Points:
    """The labels of a clip's frame 0, (P, 2) pixels of the model's frame; else `otherwise`."""
    labels, points = clip.keypoints.get(0, {}), otherwise.copy()
    for i, name in enumerate(names):
        if name in labels:
            points[i] = _in_model_frame(np.array(labels[name]), clip.crop, box)
    return points


def _read_frames(
    path: Path, crop: Crop | None, size: int, channels: int, at_most: int | None = None
) -> tuple[Picture, Letterbox, tuple[int, int]]:
    """Every frame, repeats too, letterboxed; where it lies; (H, W) of the whole original frame."""
    width, height = open_source(path).facts.stored
    images = islice(open_source(path, Reading(crop), channels), at_most)
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
