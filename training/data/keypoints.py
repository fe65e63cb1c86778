"""Keypoint labels: ``keypoints.csv``, and the way from the original's pixels to the model's points.

The table has the columns video, frame, keypoint, x, y, visible. ``video`` is a clip's name,
``frame`` the 0-based index of a video's frame or the file's name in a folder of frames, x and y are
pixels of the ORIGINAL frame (0 = centre of the first pixel), ``visible`` is 0 or 1: whether the
frame shows it. A frame may have some keypoints or none; where there is no label nothing is known.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.frames import Crop, Letterbox
from ...runtime.support.errors import InputError
from ...runtime.support.table import NAME_HINT, is_name, number, read_table, spelling_hint
from ..coordinates import pixels_to_points

COLUMNS = ("video", "frame", "keypoint", "x", "y", "visible")

_SIMILAR = 0.7  # of two names, by difflib's ratio
_RARE = 0.1  # a name this much rarer than a similar one may be a slip


class LabelError(InputError):
    """Labels that cannot be right. The clip is not left out for it: the labels are to be fixed."""


#: By frame's index and keypoint's name (x, y) in pixels of the original frame; nan: not visible.
Labels = dict[int, dict[str, tuple[float, float]]]


def read_keypoints(
    path: Path, videos: Mapping[str, Sequence[str] | None]
) -> tuple[tuple[str, ...], dict[str, Labels]]:
    """Read ``keypoints.csv``: its keypoints' names in alphabetical order, labels by video.

    Args:
        videos: the clips that there are; for a folder of frames, its files in their order.

    Raises:
        InputError: naming file and line: a malformed table, an unknown video or frame, what cannot
            be a name, a coordinate that is not a finite number (where it is visible), a visible
            that is neither 0 nor 1, a row given twice.
    """
    found: dict[str, Labels] = {}
    places = {video: {file: i for i, file in enumerate(videos[video] or ())} for video in videos}
    for line, row in read_table(path, COLUMNS):
        where = f"{path}:{line}"
        video, text, name = row["video"], row["frame"], row["keypoint"]
        if video not in videos:
            raise InputError(f"{where}: unknown video {video!r}", spelling_hint(video, videos))
        files = videos[video]
        if files is None and not re.fullmatch("[0-9]{1,9}", text):
            hint = "frames of a video are counted from 0; file names are for folders of frames"
            raise InputError(f"{where}: frame {text[:40]!r} is not an index", hint)
        if files is not None and text not in places[video]:
            raise InputError(f"{where}: there is no frame {text!r}", spelling_hint(text, files))
        if not is_name(name):
            raise InputError(f"{where}: keypoint is {name[:40]!r}", NAME_HINT)
        frame = int(text) if files is None else places[video][text]
        points = found.setdefault(video, {}).setdefault(frame, {})
        if name in points:
            fault = f"{where}: {name!r} of frame {text} of {video!r} is given twice"
            raise InputError(fault, "keep one row")
        if row["visible"] not in ("0", "1"):
            raise InputError(f"{where}: visible is {row['visible']!r}", "write 1 or 0")
        visible = row["visible"] == "1"
        x, y = (
            number(where, axis, row[axis]) if visible or row[axis] else 0.0 for axis in ("x", "y")
        )
        points[name] = (x, y) if visible else (math.nan, math.nan)
    names = {name for labels in found.values() for points in labels.values() for name in points}
    return tuple(sorted(names)), found


def outside(part: Crop, labels: Labels) -> list[tuple[int, str]]:
    """The visible labels that lie beside a part of the original frame: frame and name."""
    left, top, w, h = part
    return [
        (frame, name)
        for frame, points in sorted(labels.items())
        for name, (x, y) in points.items()
        if x < left - 0.5 or y < top - 0.5 or x > left + w - 0.5 or y > top + h - 0.5
    ]


def count_names(labels: Iterable[Labels]) -> Counter[str]:
    """In how many frames each name is labelled, the commonest first."""
    found = Counter(name for clip in labels for points in clip.values() for name in points)
    return Counter(dict(found.most_common()))


def slips(counts: Mapping[str, int], known: Collection[str] = ()) -> list[tuple[str, str]]:
    """Names that are perhaps misspelt, each with the name that may be meant.

    A name resembles a known one that no label has; or a far commoner one; or it is written like
    another but for capitals, spaces and signs.
    """
    found = []
    for name in counts:
        others = [other for other in counts if other != name and counts[other] >= counts[name]]
        lost = [other for other in known if other not in counts] if name not in known else []
        for other in [*lost, *others]:
            rare = other in lost or counts[name] <= _RARE * counts[other]
            same = _bare(name) == _bare(other) != ""
            close = SequenceMatcher(None, name, other).ratio() >= _SIMILAR
            if name not in known and (same or (rare and close)):
                found.append((name, other))
                break
    return found


def _bare(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def slip_hint(found: Sequence[tuple[str, str]]) -> str:
    """What to do about names that are perhaps misspelt; "" where there is none."""
    said = [f"{name!r}: did you mean {other!r}?" for name, other in found[:3]]
    return f"{' '.join(said)} `sonomime annotations check` shows where it is" if said else ""


def described(names: Sequence[str] | Mapping[str, int]) -> str:
    """Names, and their counts if there are any, as errors list them: the first thirty."""
    counts = names if isinstance(names, Mapping) else {}
    shown = [f"{name} ({counts[name]})" if name in counts else name for name in names]
    more = f" and {len(shown) - 30} more" if len(shown) > 30 else ""
    return ", ".join(shown[:30]) + more


def place_keypoints(
    keypoints: Mapping[str, tuple[float, float]],
    names: Sequence[str],
    crop: Crop | None,
    letterbox: Letterbox,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Map one frame's labels from pixels of the original frame to half_pixel points of the model's,
    where the letterbox has the part that the crop leaves.

    Returns:
        points float32 (P, 2) in the order of ``names``, zero where not visible; visible bool (P,),
        False where there is no label or where the crop left it out.
    """
    unknown = (math.nan, math.nan)
    pixels = np.array([keypoints.get(name, unknown) for name in names], np.float64).reshape(-1, 2)
    pixels -= (0, 0) if crop is None else crop[:2]
    last = np.array((letterbox.width, letterbox.height)) - 0.5
    visible = ((pixels >= -0.5) & (pixels <= last)).all(axis=1)
    points = pixels_to_points(letterbox.to_square(pixels), np.float64(letterbox.size))
    points[~visible] = 0
    return points.astype(np.float32), visible
