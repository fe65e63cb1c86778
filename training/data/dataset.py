"""Dataset folders: which clips there are, and one clip as the model sees it.

A dataset folder holds ``clips.csv`` (clip, subject, group, split, crop), the clips it names (video
files or folders of frames, or links to them) and, if any frame is labelled, ``keypoints.csv``;
where the true motion of a clip is known, ``displacement/`` has it. A bare folder of clips works
too: every clip is then its own subject, and a warning says so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtime.media.file_headers import IMAGE, UNREADABLE_SUFFIXES, VIDEO, VIDEO_SUFFIXES, kind_of
from ...runtime.media.frames import Crop, Letterbox, parse_crop
from ...runtime.media.video import frame_files
from ...runtime.support.errors import ConfigError, InputError, UnsupportedFormat
from ...runtime.support.table import read_table, spelling_hint
from .annotations import Labels, check_videos, labels_for, place_keypoints, read_keypoints
from .displacement import CachedDisplacement, cached_displacement, find_displacements
from .frame_cache import cached_frames

COLUMNS = ("clip", "subject", "group", "split", "crop")


@dataclass(frozen=True)
class Clip:
    """One clip of a dataset, not yet decoded.

    Attributes:
        name: unique among the clips found together, as written in ``clips.csv``.
        path: a video file or a folder of frames.
        crop: the region to use, in pixels of the original frame; None is the whole frame.
        keypoints: labels by frame (index, or file name in a folder).
        keypoint_names: the P names of the whole dataset, in alphabetical order.
        displacement: the file of its exact displacement, if there is one.
    """

    name: str
    path: Path
    subject: str
    group: str
    split: str
    crop: Crop | None = None
    keypoints: Labels = field(default_factory=dict)
    keypoint_names: tuple[str, ...] = ()
    displacement: Path | None = None


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
        visible: bool (T, P): labelled, visible and inside the crop.
        keypoint_names: the P names.
        letterbox: where the cropped image lies in the frame.
        displacement: float32 (T, S/4, S/4, 2), memory-mapped: exact, in half_pixel points, from
            each frame to the file's first; None where it is not known.
        sector: bool (S/4, S/4), where ``displacement`` holds; None with it.
        absent: bool (T, P): the label says that it is not visible, or it lies outside the crop;
            None: nowhere.
    """

    clip: Clip
    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    points: NDArray[np.float32]
    visible: NDArray[np.bool_]
    keypoint_names: tuple[str, ...]
    letterbox: Letterbox
    displacement: NDArray[np.float32] | None = None
    sector: NDArray[np.bool_] | None = None
    absent: NDArray[np.bool_] | None = None

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
        shown, hint = "", "give a folder with clips.csv, or with videos"
        if splits:
            shown, hint = f" of the split {split!r}", f"splits there: {', '.join(splits)}"
        raise InputError(f"no clip{shown} in {_listed(folders)}", hint)
    names = tuple(sorted({name for clip in clips for name in clip.keypoint_names}))
    result = ClipList([], [], warnings, names)
    for clip in _unique(clips, folders):
        clip = replace(clip, keypoint_names=names, crop=clip.crop if crop is None else crop)
        reason = _unsupported(clip.path)
        if reason is None:
            result.clips.append(clip)
        else:
            result.unsupported.append((clip, reason))
    return result


def _listed(folders: Sequence[Path]) -> str:
    return ", ".join(str(folder) for folder in folders) or "no folder"


def _find(folder: Path) -> tuple[list[Clip], list[str]]:
    if not folder.exists():
        raise InputError(f"{folder} does not exist", "check the path after --data")
    table, keypoints = folder / "clips.csv", folder / "keypoints.csv"
    if table.exists():
        clips = _read_clips(table)
        warnings = _split_warnings(folder, clips)
    elif (folder / "phantom.json").exists():
        # As a bare folder its truth and its test subjects would be trained on.
        hint = "give its `sonomime phantom` command again: it goes on where it stopped"
        raise InputError(f"{folder} is an unfinished phantom: it has no clips.csv yet", hint)
    else:
        clips = _bare(folder)
        warnings = [f"{folder}: no clips.csv, so each clip ({len(clips)}) is its own subject"]
    fields = find_displacements(folder, [clip.path for clip in clips])
    clips = [replace(clip, displacement=fields.get(clip.path)) for clip in clips]
    return (_labelled(clips, keypoints) if keypoints.exists() else clips), warnings


def _split_warnings(folder: Path, clips: Sequence[Clip]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for clip in clips:
        splits.setdefault(clip.subject, set()).add(clip.split)
    return [
        f"{folder}: subject {subject!r} is in the splits {' and '.join(sorted(names))}"
        for subject, names in splits.items()
        if len(names) > 1
    ]


def _labelled(clips: Sequence[Clip], keypoints: Path) -> list[Clip]:
    table = read_keypoints(keypoints)
    check_videos(table, {clip.name for clip in clips})
    labelled = []
    for clip in clips:
        files = {file.name for file in _frames_in(clip.path)} if clip.path.is_dir() else None
        labels = labels_for(table, clip.name, files)
        labelled.append(replace(clip, keypoints=labels, keypoint_names=table.names))
    return labelled


def _read_clips(table: Path) -> list[Clip]:
    folder = table.parent
    clips: dict[str, Clip] = {}
    for line, row in read_table(table, COLUMNS):
        where, name = f"{table}:{line}", Path(row["clip"])
        for column in ("clip", "subject", "group", "split"):
            if not row[column]:
                raise InputError(
                    f"{where}: {column} is empty", "every row has clip, subject, group and split"
                )
        if name.is_absolute() or ".." in name.parts:
            raise InputError(
                f"{where}: clip {str(name)!r} lies outside the folder", "clips lie beside clips.csv"
            )
        key, path = name.as_posix(), folder / name
        if key in clips:
            raise InputError(f"{where}: clip {key!r} is named twice", "keep one")
        if not os.path.exists(path):  # unlike Path's, False for a name that is too long
            beside = path.parent if os.path.isdir(path.parent) else folder
            there = [other.relative_to(folder).as_posix() for other in beside.iterdir()]
            raise InputError(f"{where}: there is no clip {key!r}", spelling_hint(key, there))
        try:
            crop = parse_crop(row["crop"]) if row["crop"] else None
        except ConfigError as error:
            raise InputError(f"{where}: {error.message}", error.hint) from None
        clips[key] = Clip(key, path, row["subject"], row["group"], row["split"], crop)
    if not clips:
        raise InputError(f"{table}: names no clip", "add a row per clip")
    return list(clips.values())


def _frames_in(folder: Path) -> list[Path]:
    """The frames of a folder; none where it holds other things, or videos too."""
    if any(file.suffix.lower() in VIDEO_SUFFIXES for file in folder.iterdir()):
        return []
    try:
        return frame_files(folder)
    except InputError:
        return []


def _bare(root: Path) -> list[Clip]:
    """Videos and folders of frames at or below ``root``; a clip's group is its parent folder."""
    clips: list[Clip] = []
    below = sorted(root.rglob("*")) if root.is_dir() and not _frames_in(root) else [root]
    for path in below:
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        name = relative.as_posix() if path != root else path.resolve().name
        known = path.name.lower().endswith((*VIDEO_SUFFIXES, *UNREADABLE_SUFFIXES))
        if bool(_frames_in(path)) if path.is_dir() else known or path == root:
            group = relative.parent.as_posix() if len(relative.parts) > 1 else "all"
            clips.append(Clip(name, path, name, group, ""))
    return clips


def _unsupported(path: Path) -> str | None:
    """Why there is no reader for a clip; None where it can be tried."""
    try:
        if path.is_dir():
            frame_files(path)
        elif (kind := kind_of(path)) not in (IMAGE, VIDEO):
            return f"{kind} has no reader yet"
    except UnsupportedFormat as error:
        return error.message
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    return None


def _unique(clips: Sequence[Clip], folders: Sequence[Path]) -> list[Clip]:
    """Names that two folders share get their dataset folder's name in front."""
    counts = Counter(clip.name for clip in clips)
    named = [
        replace(clip, name=f"{_root_name(clip)}/{clip.name}") if counts[clip.name] > 1 else clip
        for clip in clips
    ]
    for name, count in Counter(clip.name for clip in named).items():
        if count > 1:
            raise InputError(
                f"{name!r} is found {count} times in {_listed(folders)}",
                "name each folder once; folders of the same name need different parents' names",
            )
    return named


def _root_name(clip: Clip) -> str:
    """The name of the dataset folder that a clip's name starts from; links are not followed."""
    path = Path(os.path.abspath(clip.path))
    return path.parents[len(Path(clip.name).parts) - 1].name


def load_clip(clip: Clip, size: int, channels: int, cache_dir: Path | None = None) -> ClipFrames:
    """Decode a clip, or map what the cache holds of it.

    The labels of a repeated frame go to the frame that it repeats, unless that has its own.

    Args:
        clip: from :func:`find_clips`.
        size: side of the square model frame, in pixels.
        channels: 1 (grey) or 3 (RGB).
        cache_dir: instead of ``$XDG_CACHE_HOME/sonomime/clips``.

    Raises:
        InputError: the clip or its displacement cannot be read, or they do not fit; a label names a
            frame beyond its end.
        OutputError: see `cached_arrays`.
    """
    cached = cached_frames(clip.path, clip.crop, size, channels, cache_dir)
    names = clip.keypoint_names
    points = np.zeros((len(cached.frames), len(names), 2), np.float32)
    visible, absent = (np.zeros(points.shape[:2], np.bool_) for _ in range(2))
    files = frame_files(clip.path) if clip.keypoints and clip.path.is_dir() else []
    place = {file.name: i for i, file in enumerate(files)}
    for frame, labels in clip.keypoints.items():
        index = place[frame] if isinstance(frame, str) else frame
        if index >= len(cached.kept):
            raise InputError(
                f"keypoints.csv labels frame {frame} of {clip.path}, which is not there",
                f"it has {len(cached.kept)} frames, counted from 0",
            )
        t = int(cached.kept[index])
        own = cached.indices[t] == index
        if own or not visible[t].any():
            points[t], visible[t] = place_keypoints(labels, names, clip.crop, cached.letterbox)
            absent[t] = np.array([name in labels for name in names], np.bool_) & ~visible[t]
    exact: CachedDisplacement | tuple[None, None] = (None, None)
    if file := clip.displacement:
        exact = cached_displacement(file, clip.path, clip.crop, channels, cached, cache_dir)
    return ClipFrames(
        clip,
        cached.frames,
        cached.indices,
        points,
        visible,
        names,
        cached.letterbox,
        *exact,
        absent,
    )
