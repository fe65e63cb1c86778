"""Dataset folders: which clips there are, and one clip as the model sees it.

A dataset folder holds ``clips.csv`` (clip, subject, group, split, crop), the clips it names (video
files or folders of frames) and, if any frame is labelled, ``keypoints.csv``. A bare folder of clips
works too: every clip is then its own subject, and a warning says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtime.errors import ConfigError, InputError
from ..runtime.frames import Crop, Letterbox, parse_crop
from ._reading import IMAGES, frame_files
from .annotations import (
    Frame,
    Labels,
    check_videos,
    labels_for,
    nearest,
    place_keypoints,
    read_keypoints,
    read_table,
)
from .frame_cache import cached_frames

COLUMNS = ("clip", "subject", "group", "split", "crop")
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ogv", ".ts"}
)
UNREAD_SUFFIXES = {
    ".dcm": "DICOM",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".nii": "NIfTI",
}


@dataclass(frozen=True)
class Clip:
    """One clip of a dataset, not yet decoded.

    Attributes:
        name: unique among the clips found together, as written in ``clips.csv``.
        path: a video file or a folder of frames.
        crop: the region to use, in pixels of the original frame; None is the whole frame.
        keypoints: visible labels by frame (index, or file name in a folder), in pixels of the
            original frame.
        keypoint_names: the P names of the whole dataset, in alphabetical order.
        keypoint_lines: ``keypoints.csv`` line on which a frame is first named, for messages.
        keypoint_file: that file.
    """

    name: str
    path: Path
    subject: str
    group: str
    split: str
    crop: Crop | None = None
    keypoints: Labels = field(default_factory=dict)
    keypoint_names: tuple[str, ...] = ()
    keypoint_lines: Mapping[Frame, int] = field(default_factory=dict)
    keypoint_file: Path | None = None


@dataclass(frozen=True)
class ClipList:
    """What :func:`find_clips` found: clips to use, (clip, reason) left out, warnings, keypoints."""

    clips: list[Clip]
    unsupported: list[tuple[Clip, str]]
    warnings: list[str]
    keypoint_names: tuple[str, ...]


@dataclass(frozen=True)
class ClipFrames:
    """One clip as the model sees it: cropped, letterboxed, repeated frames dropped.

    Attributes:
        frames: uint8 (T, S, S) or (T, S, S, 3), memory-mapped.
        indices: int64 (T,), the frames' numbers in the file.
        points: float32 (T, P, 2) half_pixel points, zero where not visible.
        visible: bool (T, P): labelled, visible and inside of the crop.
        keypoint_names: the P names.
        letterbox: where the cropped image lies in the frame.
    """

    clip: Clip
    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    points: NDArray[np.float32]
    visible: NDArray[np.bool_]
    keypoint_names: tuple[str, ...]
    letterbox: Letterbox

    def __len__(self) -> int:
        return len(self.frames)


def find_clips(
    folders: Sequence[Path], *, split: str | None = None, crop: Crop | None = None
) -> ClipList:
    """Find the clips of dataset folders, bare folders, single videos.

    Args:
        folders: where to look; keypoint names are pooled over all of them.
        split: keep the clips of this split only; a bare folder has no splits and is kept whole.
        crop: overrides the crop of every clip.

    Raises:
        InputError: naming file and line: a malformed ``clips.csv`` or ``keypoints.csv``, a clip
            that is not there, a clip named twice, an unknown video; or no clip at all (naming the
            splits that there are).
    """
    clips: list[Clip] = []
    warnings: list[str] = []
    for folder in folders:
        found, said = _find(Path(folder))
        clips += found
        warnings += said
    splits = sorted({clip.split for clip in clips if clip.split})
    if split is not None:
        clips = [clip for clip in clips if clip.split in ("", split)]
        if not clips:
            raise InputError(
                f"no clip of the split {split!r} in {_listed(folders)}",
                f"splits there: {', '.join(splits)}",
            )
    if not clips:
        raise InputError(
            f"no clip in {_listed(folders)}", "give a folder with clips.csv, or with videos"
        )
    names = tuple(sorted({name for clip in clips for name in clip.keypoint_names}))
    clips = [
        replace(clip, keypoint_names=names, crop=crop if crop is not None else clip.crop)
        for clip in _unique(clips, folders)
    ]
    usable: list[Clip] = []
    unsupported: list[tuple[Clip, str]] = []
    for clip in clips:
        reason = _unsupported(clip.path)
        if reason:
            unsupported.append((clip, reason))
        else:
            usable.append(clip)
    return ClipList(usable, unsupported, warnings, names)


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders) or "no folder"


def _find(folder: Path) -> tuple[list[Clip], list[str]]:
    if not folder.exists():
        raise InputError(f"{folder}: there is no such file or folder", "check --data")
    warnings: list[str] = []
    if folder.is_file():
        clips = [Clip(folder.name, folder, folder.stem, "all", "")]
        return clips, [f"{folder}: a single clip, its own subject"]
    table = folder / "clips.csv"
    if table.exists():
        clips = _read_clips(table)
    else:
        clips = _bare(folder)
        warnings.append(
            f"{folder}: no clips.csv, so each of its {len(clips)} clips is taken for "
            "a subject of its own"
        )
    keypoints = folder / "keypoints.csv"
    if not keypoints.exists():
        return clips, warnings
    labels = read_keypoints(keypoints)
    check_videos(labels, {clip.name for clip in clips})
    labelled = []
    for clip in clips:
        files = {file.name for file in frame_files(clip.path)} if clip.path.is_dir() else None
        own = labels_for(labels, clip.name, files)
        labelled.append(
            replace(
                clip,
                keypoints=own.frames,
                keypoint_lines=own.lines,
                keypoint_names=labels.names,
                keypoint_file=keypoints,
            )
        )
    return labelled, warnings


def _read_clips(table: Path) -> list[Clip]:
    folder = table.parent
    clips: list[Clip] = []
    lines: dict[str, int] = {}
    for line, row in read_table(table, COLUMNS):
        where = f"{table}:{line}"
        name = row["clip"]
        for column in ("clip", "subject", "group", "split"):
            if not row[column]:
                raise InputError(
                    f"{where}: {column} is empty", "every row has clip, subject, group and split"
                )
        relative = Path(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise InputError(
                f"{where}: clip {name!r} lies outside of the folder", "clips lie beside clips.csv"
            )
        key = relative.as_posix()
        if key in lines:
            raise InputError(
                f"{where}: clip {name!r} is named twice (first on line {lines[key]})", "keep one"
            )
        lines[key] = line
        path = folder / relative
        if not path.exists():
            siblings = path.parent.iterdir() if path.parent.is_dir() else folder.iterdir()
            there = [other.relative_to(folder).as_posix() for other in siblings]
            raise InputError(f"{where}: there is no clip {name!r}", nearest(name, there))
        try:
            crop = parse_crop(row["crop"]) if row["crop"] else None
        except ConfigError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from None
        clips.append(Clip(key, path, row["subject"], row["group"], row["split"], crop))
    if not clips:
        raise InputError(f"{table}: names no clip", "add a row per clip")
    return clips


def _bare(folder: Path) -> list[Clip]:
    """Videos and folders of frames below ``folder``; the group is the folder they lie in."""
    if frame_files(folder):
        return [Clip(folder.resolve().name, folder, folder.resolve().name, "all", "")]
    clips: list[Clip] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts):
            continue
        is_clip = bool(frame_files(path)) if path.is_dir() else _known(path)
        if is_clip:
            group = relative.parent.as_posix() if len(relative.parts) > 1 else "all"
            clips.append(Clip(relative.as_posix(), path, relative.as_posix(), group, ""))
    return clips


def _known(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES or _format_without_reader(path) is not None


def _format_without_reader(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return UNREAD_SUFFIXES.get(suffixes[-1]) if suffixes else None


def _unsupported(path: Path) -> str | None:
    if path.is_dir():
        return None if frame_files(path) else "a folder without frames"
    name = _format_without_reader(path)
    if name is not None:
        return f"{name} has no reader yet"
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES or suffix in IMAGES:
        return None
    return f"{suffix or 'no suffix'} is no video format known here"


def _unique(clips: Sequence[Clip], folders: Sequence[Path]) -> list[Clip]:
    """Names that two folders share get their folder's name in front."""
    counts: dict[str, int] = {}
    for clip in clips:
        counts[clip.name] = counts.get(clip.name, 0) + 1
    named = [
        replace(clip, name=clip.path.resolve().as_posix()) if counts[clip.name] > 1 else clip
        for clip in clips
    ]
    if len({clip.name for clip in named}) != len(named):
        raise InputError(
            f"a clip is given twice by {_listed(folders)}", "name each folder once in --data"
        )
    return named


def load_clip(clip: Clip, size: int, channels: int, cache_dir: Path | None = None) -> ClipFrames:
    """Decode a clip, or map what the cache holds of it.

    The labels of a repeated frame go to the frame that it repeats, unless that has its own.

    Args:
        clip: from :func:`find_clips`.
        size: side of the square model frame, in pixels.
        channels: 1 (grey) or 3 (RGB).
        cache_dir: instead of ``$XDG_CACHE_HOME/sonomime/clips``.

    Raises:
        InputError: the clip cannot be read; a label names a frame beyond its end (with the line).
    """
    cached = cached_frames(clip.path, clip.crop, size, channels, cache_dir)
    count, names = len(cached.frames), clip.keypoint_names
    points = np.zeros((count, len(names), 2), np.float32)
    visible = np.zeros((count, len(names)), np.bool_)
    place = {name: i for i, name in enumerate(cached.names)}
    for frame, labels in clip.keypoints.items():
        index = place.get(frame, -1) if isinstance(frame, str) else frame
        if not 0 <= index < len(cached.kept):
            where = (
                f"{clip.keypoint_file}:{clip.keypoint_lines.get(frame, 0)}: "
                if clip.keypoint_file
                else ""
            )
            raise InputError(
                f"{where}{clip.name!r} has no frame {frame}",
                f"it has {len(cached.kept)} frames, counted from 0",
            )
        t = int(cached.kept[index])
        own = cached.indices[t] == index
        if own or not visible[t].any():
            points[t], visible[t] = place_keypoints(labels, names, clip.crop, cached.letterbox)
    return ClipFrames(clip, cached.frames, cached.indices, points, visible, names, cached.letterbox)
