"""A run of `sonomime evaluate`: from the folders to the report, for each task."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...runtime.media.frames import Crop, parse_crop
from ...runtime.support.errors import ConfigError, InputError, output_errors
from ...runtime.support.printable import printable
from ...runtime.support.progress import progress
from ..data.dataset import Clip, ClipFrames, find_clips, load_clip
from . import strips
from .candidate import Candidate, open_candidate
from .ground_truth.readers import Pair, read_clip_field, read_pair, read_pairs
from .held_out import ALL, TEST, split_to_read, training_facts
from .loop import Driven, Row, spread
from .prediction import predict
from .reconstruction import at_own_size, choose_driver, leakage, motionless, reconstruct
from .report import Report, title_of
from .tracking import follow, untrackable

LeftOut = list[tuple[str, str]]
"""Clips that cannot be used, with the reason."""
Found = tuple[list[Any], LeftOut, list[str]]
"""Clips or pairs, what was left out, warnings."""
Judged = Iterator[tuple[str, Row, strips.Pictures]]
"""Names, what was measured, pictures."""
Judging = tuple[list[Clip], LeftOut, Judged]
"""Clips that are judged, what was left out, the judging."""


def run(args: Namespace) -> int:
    """Judge every clip or pair of the folders, write the report, and print its summary.

    Raises:
        InputError: nothing that can be judged; a wrong path; truth that does not fit its clips.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    crop = parse_crop(args.crop) if args.crop else None
    predicting = args.task == "prediction"
    cases, left_out, warnings = (_find_pairs if predicting else _find_clips)(args, crop)
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)
    output = args.output
    with output_errors(output):  # at once, not after minutes of work
        (output / "strips").mkdir(parents=True, exist_ok=True)
    rows, lines = [], []
    with open_candidate(args.candidate) as candidate:
        clips, unread, judged = _JUDGES[args.task](candidate, cases, args)
        seen, said = training_facts(candidate, args.data, clips)
        for index, (name, row, (strip, line)) in enumerate(judged):
            strips.write_strip(output / "strips" / strips.strip_name(index, name), strip)
            rows.append(row)
            lines.append(line)
        facts = {**candidate.facts, **seen}
    strips.write_strip(output / "overview.png", strips.overview(lines))
    report = Report(
        _command_line(args), facts, _settings(args), rows, left_out + unread, warnings + said
    )
    report.write(output)
    if args.json:
        print(report.to_json(), end="")
    stream = sys.stderr if args.json else sys.stdout
    print(printable(report.summary()), file=stream)
    print(f"\ntables: {output / 'table.md'}", file=stream)
    print(f"all numbers: {output / 'results.json'}", file=stream)
    print(f"pictures: {output / 'overview.png'}, {output / 'strips'}/", file=stream)
    return 0


def _find_clips(args: Namespace, crop: Crop | None) -> Found:
    """Clips of the split that was asked for, or of the one that is read by default."""
    for option in ("max_pairs", "alignment"):
        if getattr(args, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{name} is for --task prediction", "leave it out, or add the task")
    found = find_clips(args.data, split=None if args.split == ALL else args.split, crop=crop)
    if args.split is None:
        clips = found.clips + [clip for clip, _ in found.unsupported]
        args.split = split_to_read({clip.split for clip in clips}, found.warnings)
        if args.split == TEST:
            found = find_clips(args.data, split=TEST, crop=crop)
    left_out = [(clip.name, reason) for clip, reason in found.unsupported]
    read = [clip.path for clip in found.clips + [clip for clip, _ in found.unsupported]]
    for folder in args.data:
        if not any(path.is_relative_to(folder) for path in read):
            found.warnings.append(f"{folder} has no clip of the split {args.split!r}")
    return found.clips, left_out, found.warnings


def _find_pairs(args: Namespace, crop: Crop | None) -> Found:
    """Pairs of the split that was asked for, or of the one that is read by default."""
    pairs: list[Pair] = []
    warnings: list[str] = []
    for folder in args.data:
        found = find_clips([folder], crop=crop)
        warnings += found.warnings
        clips = found.clips + [clip for clip, _ in found.unsupported]
        pairs += read_pairs(folder, clips, None if args.split == ALL else args.split)
    if args.split is None:
        args.split = split_to_read({pair.split for pair in pairs}, warnings)
        pairs = [pair for pair in pairs if args.split in (ALL, pair.split)]
    return spread(pairs, args.max_pairs), [], warnings


def _judge_clips(candidate: Candidate, clips: Sequence[Clip], args: Namespace) -> Judging:
    hint = "give videos or folders of frames that move"
    loaded, left_out = _read_clips(candidate, clips, motionless, hint)
    for clip in loaded:  # a wrong field is found now, not after minutes of work
        if clip.clip.displacement is not None:
            read_clip_field(clip.clip.displacement, clip)
    known = [clip.clip for clip in loaded]

    def judged() -> Judged:
        for index, clip in enumerate(progress(loaded, label="evaluating clips")):
            row, samples = reconstruct(candidate, clip, args.max_frames)
            row["own_size"] = at_own_size(candidate, clip, args.max_frames)
            row["driver"], row["leakage"] = None, None
            leaked: list[Driven] = []
            driver = choose_driver(known, index, args.seed)
            if driver is not None:
                row["driver"] = known[driver].name
                row["leakage"], leaked = leakage(candidate, clip, loaded[driver], args.max_frames)
            source = np.array(clip.frames[len(clip) // 2])
            about = f"driven by {row['driver']}, another subject"
            title, geometry = title_of(args.task, clip.clip.name, row), candidate.geometry
            other = (about, leaked)
            drawn = strips.pictures(title, source, samples, geometry, other=other)
            yield clip.clip.name, row, drawn

    return known, left_out, judged()


def _judge_tracks(candidate: Candidate, clips: Sequence[Clip], args: Namespace) -> Judging:
    hint = "tracking needs a keypoints.csv with labels in at least two frames of a clip"
    loaded, left_out = _read_clips(candidate, clips, untrackable, hint)

    def judged() -> Judged:
        for clip in progress(loaded, label="evaluating clips"):
            row, samples = follow(candidate, clip, args.max_frames)
            still, *frames = samples
            source, title = still.step.driving, title_of(args.task, clip.clip.name, row)
            start, geometry = still.step.points, candidate.geometry
            yield clip.clip.name, row, strips.pictures(title, source, frames, geometry, start)

    return [clip.clip for clip in loaded], left_out, judged()


def _judge_pairs(candidate: Candidate, pairs: Sequence[Pair], args: Namespace) -> Judging:
    if args.alignment is None:
        args.alignment = "given" if candidate.can_align else "none"
    if args.alignment != "none" and not candidate.can_align:
        raise ConfigError("this model cannot align two subjects", "leave --alignment out")
    if args.alignment == "auto" and not candidate.can_align_itself:
        raise ConfigError(
            "this model cannot align by itself", "--alignment given, landmarks or none"
        )

    def judged() -> Judged:
        for pair in progress(pairs, label="evaluating pairs"):
            data = read_pair(pair, candidate.size, candidate.channels)
            row, samples = predict(candidate, data, args.alignment, args.max_frames)
            title, geometry = title_of(args.task, pair.name, row), candidate.geometry
            drawn = strips.pictures(title, data.source, samples, geometry, data.start)
            yield pair.name, row, drawn

    ends = {clip.path: clip for pair in pairs for clip in (pair.source, pair.driving)}
    return list(ends.values()), [], judged()


_JUDGES: dict[str, Callable[[Candidate, Sequence[Any], Namespace], Judging]] = {
    "reconstruction": _judge_clips,
    "prediction": _judge_pairs,
    "tracking": _judge_tracks,
}


def _read_clips(
    candidate: Candidate,
    clips: Sequence[Clip],
    unfit: Callable[[ClipFrames], str | None],
    hint: str,
) -> tuple[list[ClipFrames], LeftOut]:
    """The clips as the model sees them, and those that cannot be used.

    Args:
        unfit: why a clip cannot be used, or None.
        hint: of the InputError if there is no clip at all.
    """
    loaded: list[ClipFrames] = []
    left_out: LeftOut = []
    for clip in progress(clips, label="reading clips"):
        try:
            # Evaluation wants the field at full size, not what training keeps of it.
            frames = load_clip(replace(clip, displacement=None), candidate.size, candidate.channels)
        except InputError as error:
            left_out.append((clip.name, error.message))
            continue
        if reason := unfit(frames):
            left_out.append((clip.name, reason))
        else:
            loaded.append(replace(frames, clip=clip))
    if not loaded:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise InputError(f"no clip can be evaluated ({reasons})", hint)
    return loaded, left_out


def _settings(args: Namespace) -> dict[str, Any]:
    """What was asked for, for the report."""
    settings = {
        "task": args.task,
        "data": " ".join(str(folder) for folder in args.data),
        "split": args.split,
        "crop": args.crop or "as the data says",
        "max_frames": args.max_frames or "all",
    }
    if args.task == "prediction":
        settings["max_pairs"] = args.max_pairs or "all"
        settings["alignment"] = args.alignment
    return {**settings, "seed": args.seed}


def _command_line(args: Namespace) -> str:
    """The command that asks for this evaluation again."""
    words = ["sonomime", "evaluate", str(args.candidate), "--data", *map(str, args.data)]
    words += ["--task", args.task, "-o", str(args.output), "--seed", str(args.seed)]
    for option in ("split", "crop", "max_frames", "max_pairs", "alignment"):
        if (value := getattr(args, option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)
