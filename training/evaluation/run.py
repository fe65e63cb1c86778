"""A run of `sonomime evaluate`: from the folders to the report, for each task."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...runtime.media.frames import Crop, parse_crop
from ...runtime.support.errors import ConfigError, InputError, output_errors
from ...runtime.support.progress import progress
from ..data.dataset import Clip, ClipFrames, find_clips, load_clip
from . import strips
from .candidate import Candidate, open_candidate
from .ground_truth.readers import Pair, read_pair, read_pairs
from .ground_truth.scores import clip_truth
from .held_out import ALL, TEST, split_to_read, training_facts
from .own_size import at_own_size
from .prediction import PairResult, predict
from .prediction_report import PredictionReport
from .reconstruction import ClipResult, Drive, choose_driver, leakage, reconstruct, spread
from .reconstruction_report import ReconstructionReport
from .strips import Picture
from .tracking import TrackingResult, follow, untrackable
from .tracking_report import TrackingReport

Result = ClipResult | PairResult | TrackingResult
LeftOut = list[tuple[str, str]]
Found = tuple[list[Any], LeftOut, list[str]]
"""Clips or pairs, clips that cannot be read with the reason, warnings."""
Judged = Iterator[tuple[str, Result, Picture, Picture]]
"""Names, what was measured, strips and lines of the overview."""
Judging = tuple[list[Clip], LeftOut, Judged]
"""Clips that are judged, clips that cannot be with the reason, the judging."""


def run(args: Namespace) -> int:
    """Judge every clip or pair of the folders, and write the report.

    Raises:
        InputError: nothing that can be judged; a wrong path; truth that does not fit its clips.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    find, judge, kind = _TASKS[args.task]
    cases, left_out, warnings = find(args, parse_crop(args.crop) if args.crop else None)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    with output_errors(args.output):  # at once, not after minutes of work
        (args.output / "strips").mkdir(parents=True, exist_ok=True)
    with open_candidate(args.candidate) as candidate:
        clips, unread, judged = judge(candidate, cases, args)
        seen, said = training_facts(candidate, args.data, clips)
        results = _draw(judged, args.output)
        facts = {**candidate.facts, **seen}
    settings, left_out = _settings(args), left_out + unread
    report = kind(command_line(args), facts, settings, results, left_out, warnings + said)
    report.write(args.output)
    print(report.to_json() if args.json else report.to_markdown(), end="")
    print(f"{report.summary_line()}\nwritten to {args.output}", file=sys.stderr)
    return 0


def _draw(judged: Judged, output: Path) -> list[Result]:
    """Write the strip of each as soon as it is done, and all of them on one page."""
    results, rows = [], []
    for index, (name, result, strip, row) in enumerate(judged):
        strips.write_strip(output / "strips" / strips.strip_name(index, name), strip)
        results.append(result)
        rows.append(row)
    strips.write_strip(output / "overview.png", strips.overview(rows))
    return results


def clips_to_judge(args: Namespace, crop: Crop | None) -> Found:
    """Clips of the split that was asked for, or of the one that is read by default.

    Raises:
        InputError: wrong paths, or no clip.
        ConfigError: an option of another task.
    """
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


def pairs_to_judge(args: Namespace, crop: Crop | None) -> Found:
    """Pairs of the split that was asked for, or of the one that is read by default.

    Raises:
        InputError: wrong paths, or no pair.
    """
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
    loaded, left_out = read_clips(candidate, clips, motionless)
    drives = [_drive(clip, frames) for clip, frames in loaded]
    known = [(drive.name, drive.subject, drive.group) for drive in drives]

    def judged() -> Judged:
        for index, drive in enumerate(progress(drives, label="evaluating clips")):
            result, pictures = reconstruct(candidate, drive, args.max_frames)
            own_size = at_own_size(candidate, loaded[index][1], args.max_frames)
            result = replace(result, own_size=own_size)
            other = choose_driver(known, index, args.seed)
            if other is not None:
                by = drives[other]
                leak, pictures.other = leakage(candidate, drive, by, args.max_frames)
                result = replace(result, driver=by.name, leakage=leak)
            strip = strips.clip_strip(result, pictures, candidate.geometry)
            yield drive.name, result, strip, strips.clip_row(result, pictures)

    return [clip for clip, _ in loaded], left_out, judged()


def motionless(frames: ClipFrames) -> str | None:
    """Why a clip cannot be reconstructed; None where it can."""
    return "has one distinct frame only, so nothing moves" if len(frames) < 2 else None


def _drive(clip: Clip, frames: ClipFrames) -> Drive:
    """A clip as a drive; InputError where its exact field does not fit it."""
    truth = None if clip.displacement is None else clip_truth(clip.displacement, frames)
    return Drive(clip.name, clip.subject, clip.group, frames.frames, truth)


def _judge_tracks(candidate: Candidate, clips: Sequence[Clip], args: Namespace) -> Judging:
    loaded, left_out = read_clips(candidate, clips, untrackable)

    def judged() -> Judged:
        for clip, frames in progress(loaded, label="evaluating clips"):
            result, tracked = follow(candidate, frames, args.max_frames)
            yield (
                clip.name,
                result,
                *(draw(result, tracked) for draw in (strips.track_strip, strips.track_row)),
            )

    return [clip for clip, _ in loaded], left_out, judged()


def read_clips(
    candidate: Candidate, clips: Sequence[Clip], unfit: Callable[[ClipFrames], str | None]
) -> tuple[list[tuple[Clip, ClipFrames]], LeftOut]:
    """The clips as the model sees them, and those that cannot be used, with the reason.

    Args:
        unfit: why a clip cannot be used, or None.

    Raises:
        InputError: no clip at all.
    """
    loaded: list[tuple[Clip, ClipFrames]] = []
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
            continue
        loaded.append((clip, frames))
    if not loaded:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise InputError(f"no clip can be evaluated ({reasons})", _HINTS[unfit])
    return loaded, left_out


_HINTS = {
    motionless: "give videos or folders of frames that move",
    untrackable: "tracking needs a keypoints.csv with labels in at least two frames of a clip",
}


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
            result, pictures = predict(candidate, data, args.alignment, args.max_frames)
            strip = strips.pair_strip(result, pictures, candidate.geometry)
            yield pair.name, result, strip, strips.pair_row(result, pictures)

    ends = {clip.path: clip for pair in pairs for clip in (pair.source, pair.driving)}
    return list(ends.values()), [], judged()


_TASKS = {
    "reconstruction": (clips_to_judge, _judge_clips, ReconstructionReport),
    "prediction": (pairs_to_judge, _judge_pairs, PredictionReport),
    "tracking": (clips_to_judge, _judge_tracks, TrackingReport),
}


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


def command_line(args: Namespace) -> str:
    """The command that asks for this evaluation again."""
    words = ["sonomime", "evaluate", str(args.candidate), "--data", *map(str, args.data)]
    words += ["--task", args.task, "-o", str(args.output), "--seed", str(args.seed)]
    for option, value in (
        ("--split", args.split),
        ("--crop", args.crop),
        ("--max-frames", args.max_frames),
        ("--max-pairs", args.max_pairs),
        ("--alignment", args.alignment),
    ):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
