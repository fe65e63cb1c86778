"""Dataset folders: which clips there are, and what belongs to each.

A dataset folder holds ``clips.csv`` (clip, subject, group, split, crop), the clips it names (video
files or folders of frames, or links to them) and, if any frame is labelled, ``keypoints.csv``;
where the true motion of a clip is known, ``displacement/<stem of its file>.npz`` has it. A bare
folder of clips works too: every clip is then its own subject, and a warning says so.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ...runtime.media.frames import AskedCrop, parse_crop
from ...runtime.readers.file_headers import DICOM, IMAGE, kind_by_name, kind_of
from ...runtime.readers.folder import series_of
from ...runtime.readers.open_source import READERS
from ...runtime.readers.stills import size_and_pages
from ...runtime.support.errors import ConfigError, InputError, UnsupportedFormat
from ...runtime.support.table import read_table, spelling_hint
from .keypoints import Labels, read_keypoints

COLUMNS = ("clip", "subject", "group", "split", "crop")


@dataclass(frozen=True)
class Clip:
    """One clip of a dataset, not yet decoded."""

    name: str  # unique among the clips found together, as written in clips.csv
    path: Path  # a video file or a folder of frames
    subject: str
    group: str
    split: str
    crop: AskedCrop = None  # the region to use, in pixels of the original frame; None: all
    keypoints: Labels = field(default_factory=dict)
    keypoint_names: tuple[str, ...] = ()  # the P names of all the data, in alphabetical order
    displacement: Path | None = None  # the file of its exact displacement


@dataclass(frozen=True)
class ClipList:
    """What :func:`find_clips` found: clips to use, (clip, reason) left out, warnings."""

    clips: list[Clip]
    unsupported: list[tuple[Clip, str]]
    warnings: list[str]


def find_clips(
    folders: Sequence[Path], *, split: str | None = None, crop: AskedCrop = None
) -> ClipList:
    """Find the clips of dataset folders, bare folders, single videos.

    Args:
        folders: where to look; keypoint names are pooled over all of them.
        split: keep the clips of this split only; a bare folder has no splits and is kept whole.
        crop: overrides the crop of every clip.

    Raises:
        InputError: a malformed table (naming file and line), a clip that is not there or is named
            twice, clips that would share a displacement, no clip at all (naming the splits); where
            a split is asked for, a subject in two splits, which otherwise is a warning.
    """
    warnings: list[str] = []
    every = [clip for folder in folders for clip in _find(Path(folder), warnings)]
    if split is not None:
        check_splits(every)
    warnings += _in_two_splits(every)
    clips = [clip for clip in every if split is None or clip.split in ("", split)]
    if not clips:
        shown, hint = "", "give a folder with clips.csv, with videos or with folders of frames"
        if named := sorted({clip.split for clip in every if clip.split}):
            shown, hint = f" of the split {split!r}", f"splits there: {', '.join(named)}"
        raise InputError(f"no clip{shown} in {', '.join(map(str, folders)) or 'no folder'}", hint)
    names = tuple(sorted({name for clip in clips for name in clip.keypoint_names}))
    result = ClipList([], [], warnings)
    for clip in _unique(clips):
        clip = replace(clip, keypoint_names=names, crop=clip.crop if crop is None else crop)
        if reason := _unsupported(clip.path):
            result.unsupported.append((clip, reason))
        else:
            result.clips.append(clip)
    return result


def check_splits(clips: Sequence[Clip]) -> None:
    """Refuse clips of which one subject is in two splits: a model would be judged on whom it knows.

    Raises:
        InputError: naming subjects and splits.
    """
    if faults := _in_two_splits(clips):
        more = f", and {len(faults) - 3} more" if len(faults) > 3 else ""
        hint = (
            "give a subject one split in clips.csv, and two people two names; "
            "`sonomime evaluate --split all` needs none"
        )
        raise InputError("; ".join(faults[:3]) + more, hint)


def _in_two_splits(clips: Sequence[Clip]) -> list[str]:
    splits = defaultdict[str, set[str]](set)
    for clip in clips:
        splits[clip.subject] |= {clip.split} - {""}
    return [
        f"subject {subject!r} is in the splits {' and '.join(sorted(names))}"
        for subject, names in splits.items()
        if len(names) > 1
    ]


def _find(folder: Path, warnings: list[str]) -> list[Clip]:
    """The clips of one folder, with what belongs to them; adds to the warnings."""
    if not folder.exists():
        raise InputError(f"{folder} does not exist", "check the path")
    if (folder / "clips.csv").exists():
        clips = _listed(folder)
    elif (folder / "phantom.json").exists():
        # As a bare folder its truth and its test subjects would be trained on.
        hint = "give its `sonomime phantom` command again: it goes on where it stopped"
        raise InputError(f"{folder} is an unfinished phantom: it has no clips.csv yet", hint)
    else:
        clips = _bare(folder)
        warnings.append(
            f"{folder}: no clips.csv, so each clip ({len(clips)}) is its own subject, and in every "
            "split"
        )
    names, labels = (), {}
    if (table := folder / "keypoints.csv").exists():
        names, labels = read_keypoints(table, {clip.name: frame_files(clip) for clip in clips})
    found, owners = [], {}
    for clip in clips:
        stem = clip.path.name if clip.path.is_dir() else clip.path.stem
        exact = folder / "displacement" / f"{stem}.npz"
        if not os.path.isfile(exact):  # unlike Path's, False for a name that is too long
            exact = None
        elif (other := owners.setdefault(exact, clip.path)) != clip.path:
            fault = f"{exact} could belong to {other} or to {clip.path}"
            raise InputError(fault, "rename one of the clips")
        own = labels.get(clip.name, {})
        found.append(replace(clip, keypoints=own, keypoint_names=names, displacement=exact))
    return found


def _listed(folder: Path) -> list[Clip]:
    """The clips of ``clips.csv``."""
    table = folder / "clips.csv"
    clips: dict[str, Clip] = {}
    for line, row in read_table(table, COLUMNS):
        where, name = f"{table}:{line}", Path(row["clip"])
        for column in COLUMNS[:-1]:
            if not row[column]:
                raise InputError(f"{where}: {column} is empty", "only crop may be empty")
        if name.is_absolute() or ".." in name.parts:
            fault = f"{where}: clip {str(name)!r} lies outside the folder"
            raise InputError(fault, "clips lie beside clips.csv")
        key, path = name.as_posix(), folder / name
        if key in clips:
            raise InputError(f"{where}: clip {key!r} is named twice", "keep one")
        if not os.path.exists(path):
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


def _bare(root: Path) -> list[Clip]:
    """Videos and folders of frames at or below ``root``; a clip's group is its parent folder."""
    # One picture beside clips (a preview, say) does not make their folder a clip.
    if not root.is_dir() or len(_frames_in(root)) > 1:
        name = root.resolve().name
        return [Clip(name, root, name, "all", "")]
    clips: list[Clip] = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if any(part.startswith(".") for part in relative.parts):
            continue
        if _frames_in(path) if path.is_dir() else _is_clip(path):
            group = relative.parent.as_posix() if len(relative.parts) > 1 else "all"
            clips.append(Clip(relative.as_posix(), path, relative.as_posix(), group, ""))
    return clips


def _is_clip(file: Path) -> bool:
    """Whether a file is a clip by itself, by its name; of pictures, if it has several pages."""
    kind = kind_by_name(file)
    if kind is None and not file.suffix and file.is_file():  # as archives export DICOM
        return kind_of(file) == DICOM
    if kind == IMAGE and file.suffix.lower() in (".tif", ".tiff", ".webp", ".apng"):
        return size_and_pages(file)[1] > 1
    return kind not in (None, IMAGE)


def frame_files(clip: Clip) -> list[str] | None:
    """Names of a clip's frames in order, where it is a folder of them; None for other clips."""
    return _frames_in(clip.path) if clip.path.is_dir() else None


def _frames_in(folder: Path) -> list[str]:
    """Names of a folder's frames; none where it holds other things, or clips too."""
    if any(map(_is_clip, folder.iterdir())):
        return []
    try:
        return [file.name for file in series_of(folder).files]
    except InputError:
        return []


def _unsupported(path: Path) -> str | None:
    """Why there is no reader for a clip; None where it can be tried."""
    try:
        if path.is_dir():
            series_of(path)
        elif (kind := kind_of(path)) not in READERS:
            return f"{kind} has no reader yet"
    except UnsupportedFormat as error:
        return error.message
    except OSError:
        pass  # whoever reads it says why that fails
    return None


def _unique(clips: Sequence[Clip]) -> list[Clip]:
    """Names that two folders share get their dataset folder's name in front."""
    counts = Counter(clip.name for clip in clips)
    named: dict[str, Clip] = {}
    for clip in clips:
        name = clip.name
        if counts[name] > 1:
            path = Path(os.path.abspath(clip.path))  # links are not followed
            name = f"{path.parents[len(Path(name).parts) - 1].name}/{name}"
        if name in named:
            hint = "name each folder once; folders of the same name need different parents' names"
            raise InputError(f"the clip {name!r} is found twice", hint)
        named[name] = replace(clip, name=name)
    return list(named.values())
