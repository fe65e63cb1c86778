"""Keypoint labels: ``keypoints.csv``, and the way from the original's pixels to the model's points.

The table has the columns video, frame, keypoint, x, y, visible. ``video`` is a clip's name,
``frame`` the 0-based index of a video's frame or the file's name in a folder of frames, x and y are
pixels of the ORIGINAL frame (0 = centre of the first pixel), ``visible`` is 0 or 1: whether the
frame shows it. A frame may carry some keypoints, or none: what is missing is masked out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox
from ...runtime.support.errors import InputError
from ...runtime.support.table import NAME_HINT, is_name, number, read_table, spelling_hint
from ..coordinates import pixels_to_points

COLUMNS = ("video", "frame", "keypoint", "x", "y", "visible")

Frame = int | str
Labels = Mapping[Frame, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class VideoLabels:
    """One video's labels: keypoints by frame, nan where the label says that it is not visible, and
    the line that first names a frame."""

    frames: Labels = field(default_factory=dict)
    lines: Mapping[Frame, int] = field(default_factory=dict)


@dataclass(frozen=True)
class KeypointTable:
    """A whole ``keypoints.csv``: names in alphabetical order, labels by video."""

    path: Path
    names: tuple[str, ...]
    videos: Mapping[str, VideoLabels]


def read_keypoints(path: Path) -> KeypointTable:
    """Read ``keypoints.csv``.

    Rows with visible = 0 are checked like all others; then their place is nan. A frame written as a
    number is kept as the text it is; :func:`labels_for` makes it an index for a video.

    Raises:
        InputError: naming file and line: a malformed table, what cannot be a name, a coordinate
            that is no finite number, a visible that is neither 0 nor 1, a row given twice.
    """
    names: set[str] = set()
    frames: dict[str, dict[Frame, dict[str, tuple[float, float]]]] = {}
    lines: dict[str, dict[Frame, int]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        video, frame, name = row["video"], row["frame"], row["keypoint"]
        for column in ("video", "frame", "keypoint"):
            if not row[column]:
                raise InputError(
                    f"{where}: {column} is empty", "every row names a video, a frame and a keypoint"
                )
        if not is_name(name):
            raise InputError(f"{where}: keypoint is {name[:40]!r}", NAME_HINT)
        if (first := seen.setdefault((video, frame, name), line)) != line:
            raise InputError(
                f"{where}: {name!r} of frame {frame} of {video!r} is given twice "
                f"(first on line {first})",
                "keep one of the two rows",
            )
        if row["visible"] not in ("0", "1"):
            raise InputError(f"{where}: visible is {row['visible']!r}", "write 1 or 0")
        shown = row["visible"] == "1"
        # What is not visible has often no place either: its cells may be empty.
        x, y = (_coordinate(where, axis, row[axis], empty=not shown) for axis in ("x", "y"))
        names.add(name)
        lines.setdefault(video, {}).setdefault(frame, line)
        place = (x, y) if shown else (math.nan, math.nan)
        frames.setdefault(video, {}).setdefault(frame, {})[name] = place
    videos = {video: VideoLabels(frames[video], lines[video]) for video in frames}
    return KeypointTable(path, tuple(sorted(names)), videos)


def _coordinate(where: str, axis: str, text: str, empty: bool) -> float:
    return 0.0 if empty and not text else number(where, axis, text)


def check_videos(table: KeypointTable, names: Collection[str]) -> None:
    """See that the table's videos are among ``names``.

    Raises:
        InputError: naming file, line and the nearest name.
    """
    for video, labels in table.videos.items():
        if video not in names:
            line = min(labels.lines.values())
            raise InputError(
                f"{table.path}:{line}: unknown video {video!r}", spelling_hint(video, names)
            )


def labels_for(table: KeypointTable, video: str, file_names: Collection[str] | None) -> VideoLabels:
    """The labels of one video: frames as indices (``file_names`` None), or a folder's file names.

    Raises:
        InputError: naming file and line: a frame of a video that is no index, a frame that the
            folder lacks.
    """
    labels = table.videos.get(video)
    if labels is None:
        return VideoLabels()
    if file_names is not None:
        for frame, line in labels.lines.items():
            if frame not in file_names:
                raise InputError(
                    f"{table.path}:{line}: {video!r} has no frame {frame!r}",
                    spelling_hint(str(frame), file_names),
                )
        return labels
    index: dict[Frame, Frame] = {}
    for frame, line in labels.lines.items():
        text = str(frame)
        if not (text.isascii() and text.isdigit()) or int(text) in index.values():
            raise InputError(
                f"{table.path}:{line}: frame {text!r} of the video {video!r} is no index, "
                "or is given in two ways",
                "frames of a video are counted from 0; file names are for folders of frames",
            )
        index[frame] = int(text)
    return VideoLabels(
        {index[frame]: points for frame, points in labels.frames.items()},
        {index[frame]: line for frame, line in labels.lines.items()},
    )


def place_keypoints(
    keypoints: Mapping[str, tuple[float, float]],
    names: Sequence[str],
    crop: Crop | None,
    letterbox: Letterbox,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Map one frame's labels from pixels of the original frame to points of the model's frame.

    Convention: half_pixel; pixel -> crop -> letterbox -> point.

    Args:
        keypoints: name -> (x, y) in pixels of the original frame; nan: not visible.
        names: the P names, in the order of the result.
        crop: the region in use, or None for the whole frame.
        letterbox: where the cropped image lies in the model's frame.

    Returns:
        points float32 (P, 2), zero where there is no label; visible bool (P,), False where there is
        no label or where the crop left it out.
    """
    points = np.zeros((len(names), 2), np.float32)
    visible = np.zeros(len(names), np.bool_)
    origin = np.array(crop[:2] if crop else (0, 0), np.float64)
    extent = np.array((letterbox.width, letterbox.height), np.float64)
    for i, name in enumerate(names):
        if name not in keypoints:
            continue
        cropped = np.array(keypoints[name], np.float64) - origin
        if ((cropped >= -0.5) & (cropped <= extent - 0.5)).all():
            visible[i] = True
            points[i] = pixels_to_points(letterbox.to_square(cropped), np.float64(letterbox.size))
    return points, visible
