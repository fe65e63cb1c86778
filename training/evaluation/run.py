"""A run of `sonomime evaluate`: from the folders to the report, for each task."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...runtime.media.frames import parse_crop
from ...runtime.support.errors import ConfigError, InputError, output_errors
from ...runtime.support.printable import printable
from ...runtime.support.progress import progress
from ..data.dataset import Clip, ClipFrames, ClipList, find_clips, load_clip
from . import strips
from .candidate import Candidate, open_candidate
from .ground_truth.readers import read_clip_field, read_pair, read_pairs
from .held_out import ALL, split_to_read, training_facts
from .loop import Row, spread
from .prediction import predict
from .reconstruction import at_own_size, choose_driver, leakage, motionless, reconstruct
from .report import Report, title_of
from .tracking import follow, untrackable

LeftOut = list[tuple[str, str]]
"""Clips that cannot be used, with the reason."""
Judging = tuple[list[Clip], LeftOut, Iterator[tuple[str, Row, strips.Sketch]]]
"""The clips of a task, those left out, and of each case: name, measures, what is drawn."""


def run(args: Namespace) -> int:
    """Judge every clip or pair of the folders, write the report, and print its summary.

    Raises:
        InputError: nothing can be judged; a wrong path; truth that does not fit its clips.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    for option in ("max_pairs", "alignment"):
        if args.task != "prediction" and getattr(args, option) is not None:
            name = f"--{option.replace('_', '-')}"
            raise ConfigError(f"{name} is for --task prediction", "leave it out, or add the task")
    cases, left_out, warnings = (_find_pairs if args.task == "prediction" else _find_clips)(args)
    _warn(warnings)
    output = args.output
    with output_errors(output):  # at once, not after minutes of work
        (output / "strips").mkdir(parents=True, exist_ok=True)
    rows, lines = [], []
    with open_candidate(args.candidate) as candidate:
        clips, unread, judged = _JUDGES[args.task](candidate, cases, args)
        seen, said = training_facts(candidate, args.data, clips)
        _warn(said)
        for index, (name, row, sketch) in enumerate(judged):
            title = title_of(args.task, name, row)
            strip, line = strips.pictures(title, sketch, candidate.geometry)
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


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(printable(f"warning: {warning}"), file=sys.stderr)


def _find_clips(args: Namespace) -> tuple[list[Any], LeftOut, list[str]]:
    """Clips of the split, those without a reader, warnings."""
    crop = parse_crop(args.crop) if args.crop else None
    found = find_clips(args.data, split=None if args.split == ALL else args.split, crop=crop)
    if args.split is None:
        args.split = split_to_read({clip.split for clip in _every(found)}, found.warnings)
        if args.split != ALL:
            found = find_clips(args.data, split=args.split, crop=crop)
    for folder in args.data:
        if not any(clip.path.is_relative_to(folder) for clip in _every(found)):
            found.warnings.append(f"{folder} has no clip of the split {args.split!r}")
    left_out = [(clip.name, reason) for clip, reason in found.unsupported]
    return found.clips, left_out, found.warnings


def _find_pairs(args: Namespace) -> tuple[list[Any], LeftOut, list[str]]:
    """Pairs of the split, nothing left out, warnings."""
    crop = parse_crop(args.crop) if args.crop else None
    pairs, warnings = [], []
    for folder in args.data:
        found = find_clips([folder], crop=crop)
        warnings += found.warnings
        pairs += read_pairs(folder, _every(found), None if args.split == ALL else args.split)
    if args.split is None:
        args.split = split_to_read({pair.split for pair in pairs}, warnings)
        pairs = [pair for pair in pairs if args.split in (ALL, pair.split)]
    return spread(pairs, args.max_pairs), [], warnings


def _every(found: ClipList) -> list[Clip]:
    return found.clips + [clip for clip, _ in found.unsupported]


def _judge_clips(candidate: Candidate, clips: Sequence[Clip], args: Namespace) -> Judging:
    hint = "give videos or folders of frames that move"
    loaded, left_out = _read_clips(candidate, clips, motionless, hint)
    for clip in loaded:  # a wrong field is found now, not after minutes of work
        if clip.clip.displacement is not None:
            read_clip_field(clip.clip.displacement, clip)
    known = [clip.clip for clip in loaded]

    def judged() -> Iterator[tuple[str, Row, strips.Sketch]]:
        for index, clip in enumerate(progress(loaded, label="evaluating clips")):
            row, samples = reconstruct(candidate, clip, args.max_frames)
            row["own_size"] = at_own_size(candidate, clip, args.max_frames)
            row["driver"], row["leakage"] = None, None
            sketch = strips.Sketch(np.array(clip.frames[len(clip) // 2]), samples)
            driver = choose_driver(known, index, args.seed)
            if driver is not None:
                row["driver"] = known[driver].name
                row["leakage"], leaked = leakage(candidate, clip, loaded[driver], args.max_frames)
                about = f"driven by {row['driver']}, another subject"
                sketch = sketch._replace(other_title=about, other=leaked)
            yield clip.clip.name, row, sketch

    return known, left_out, judged()


def _judge_tracks(candidate: Candidate, clips: Sequence[Clip], args: Namespace) -> Judging:
    hint = "tracking needs a keypoints.csv with labels in at least two frames of a clip"
    loaded, left_out = _read_clips(candidate, clips, untrackable, hint)

    def judged() -> Iterator[tuple[str, Row, strips.Sketch]]:
        for clip in progress(loaded, label="evaluating clips"):
            row, (still, *frames) = follow(candidate, clip, args.max_frames)
            yield clip.clip.name, row, strips.Sketch(still.step.driving, frames, still.step.points)

    return [clip.clip for clip in loaded], left_out, judged()


def _judge_pairs(candidate: Candidate, pairs: Sequence[Any], args: Namespace) -> Judging:
    if args.alignment is None:
        args.alignment = "given" if candidate.can_align else "none"
    if args.alignment != "none" and not candidate.can_align:
        raise ConfigError("this model cannot align two subjects", "leave --alignment out")
    if args.alignment == "auto" and not candidate.can_align_itself:
        raise ConfigError(
            "this model cannot align by itself", "--alignment given, landmarks or none"
        )

    def judged() -> Iterator[tuple[str, Row, strips.Sketch]]:
        for pair in progress(pairs, label="evaluating pairs"):
            data = read_pair(pair, candidate.size, candidate.channels)
            row, samples = predict(candidate, data, args.alignment, args.max_frames)
            yield pair.name, row, strips.Sketch(data.source, samples, data.start)

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
    """The clips as the model sees them, and those that cannot be used: `unfit` says why.

    Raises:
        InputError: no clip can be used; with this hint.
    """
    loaded: list[ClipFrames] = []
    left_out: LeftOut = []
    for clip in progress(clips, label="reading clips"):
        try:
            # Evaluation reads the field at full size, which training does not keep.
            frames = load_clip(replace(clip, displacement=None), candidate.size, candidate.channels)
            reason = unfit(frames)
        except InputError as error:
            reason = error.message
        if reason is None:
            loaded.append(replace(frames, clip=clip))
        else:
            left_out.append((clip.name, reason))
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
        settings |= {"max_pairs": args.max_pairs or "all", "alignment": args.alignment}
    return {**settings, "seed": args.seed}


def _command_line(args: Namespace) -> str:
    """The command that asks for this evaluation again."""
    words = ["sonomime", "evaluate", str(args.candidate), "--data", *map(str, args.data)]
    words += ["--task", args.task, "-o", str(args.output), "--seed", str(args.seed)]
    for option in ("split", "crop", "max_frames", "max_pairs", "alignment"):
        if (value := getattr(args, option)) is not None:
            words += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(words)
