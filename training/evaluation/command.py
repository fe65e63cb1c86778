"""`sonomime evaluate`: registration (argparse only) and the run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.dataset import Clip
    from .candidate import Candidate
    from .reconstruction import ClipResult, Drive

EVALUATE_EXAMPLE = """example:
  sonomime evaluate runs/first/checkpoint.pt --data clips/ --split val -o runs/first/val
  sonomime evaluate my-bundle/ --data clips/ --max-frames 20 -o quick --json
  sonomime evaluate my-bundle/ --data phantom/ --task prediction -o predictions
"""


def add_evaluate(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `sonomime evaluate`."""
    parser = sub.add_parser(
        "evaluate",
        help="measure a checkpoint or a bundle on clips",
        description="Reconstruction: each clip drives its own middle frame, beside three baselines "
        "(held source, best blur, dense flow), and another subject's clip drives it, to look for "
        "leaking speckle. Prediction: on a phantom's pairs, one subject's clip drives another's "
        "first frame, and the truth is known. Choose between runs on the split val; look at test "
        "once, when you have chosen. The report says what the model was trained on, as far as that "
        "is recorded. "
        "The folder gets results.json, table.md, overview.png and strips/.",
        epilog=EVALUATE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "candidate", type=Path, metavar="CHECKPOINT_OR_BUNDLE", help="what to evaluate"
    )
    parser.add_argument(
        "--data", nargs="+", type=Path, required=True, metavar="DIR", help="dataset folders"
    )
    tasks = ["reconstruction", "prediction"]
    parser.add_argument("--task", choices=tasks, default=tasks[0], help="what it has to do")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the report"
    )
    parser.add_argument(
        "--split",
        metavar="S",
        help="only clips of this split, or all (default: test, where the data has it; else all)",
    )
    parser.add_argument(
        "--crop", metavar="X,Y,W,H", help="region of every clip, pixels of the original frame"
    )
    parser.add_argument(
        "--max-frames",
        type=_positive,
        metavar="N",
        help="at most N frames of a clip, evenly spread: a quick look",
    )
    parser.add_argument(
        "--max-pairs",
        type=_positive,
        metavar="N",
        help="prediction: at most N pairs, evenly spread: a quick look",
    )
    parser.add_argument(
        "--seed",
        type=_not_negative,
        default=0,
        help="chooses other subjects, draws the intervals (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print results.json, not the tables")
    parser.set_defaults(run=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> int:
    """Run `sonomime evaluate`.

    Raises:
        InputError: no clip that can be used; a wrong path.
        CheckpointError, BundleError: the candidate cannot be opened.
        OutputError: the report cannot be written.
    """
    if args.task == "prediction":
        from .prediction_command import run_prediction

        return run_prediction(args)
    from ...runtime.media.frames import parse_crop
    from ...runtime.support.errors import ConfigError
    from ..data.dataset import find_clips
    from .candidate import open_candidate
    from .held_out import ALL, NO_TEST, split_to_read, training_facts
    from .request import command_line, make_output, settings_of
    from .table import Report, summary_line, to_json, to_markdown, write_report

    if args.max_pairs is not None:
        raise ConfigError("--max-pairs is for --task prediction", "leave it out, or add the task")
    crop = parse_crop(args.crop) if args.crop else None
    asked = None if args.split == ALL else args.split
    found = find_clips(args.data, split=asked, crop=crop)
    if args.split is None:
        clips = found.clips + [clip for clip, _ in found.unsupported]
        args.split = split_to_read({clip.split for clip in clips})
        if args.split == ALL:
            found.warnings.append(NO_TEST)
        else:
            found = find_clips(args.data, split=args.split, crop=crop)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    make_output(args.output)
    left_out = [(clip.name, reason) for clip, reason in found.unsupported]
    with open_candidate(args.candidate) as candidate:
        drives, unread = _load(found.clips, candidate)
        read = {drive.name for drive in drives}
        used = [clip for clip in found.clips if clip.name in read]
        seen, warnings = training_facts(candidate, args.data, used)
        results = _evaluate(candidate, drives, args.output, args.max_frames, args.seed)
        facts = {**candidate.facts, **seen}
    report = Report(
        command=command_line(args),
        candidate=facts,
        settings=settings_of(args),
        results=results,
        left_out=left_out + unread,
        warnings=found.warnings + warnings,
    )
    write_report(report, args.output)
    print(to_json(report) if args.json else to_markdown(report), end="")
    print(f"{summary_line(report)}\nwritten to {args.output}", file=sys.stderr)
    return 0


def _load(clips: Sequence[Clip], candidate: Candidate) -> tuple[list[Drive], list[tuple[str, str]]]:
    """The clips as the model sees them, and those that cannot be used, with the reason.

    Raises:
        InputError: an exact field that does not fit its clip; no clip at all.
    """
    from dataclasses import replace

    from ...runtime.support.errors import InputError
    from ...runtime.support.progress import progress
    from ..data.dataset import load_clip
    from .ground_truth.scores import clip_truth
    from .reconstruction import Drive

    drives: list[Drive] = []
    left_out: list[tuple[str, str]] = []
    for clip in progress(clips, label="reading clips"):
        try:
            # Evaluation wants the field at full size, not what training keeps of it.
            loaded = load_clip(replace(clip, displacement=None), candidate.size, candidate.channels)
        except InputError as error:
            left_out.append((clip.name, error.message))
            continue
        if len(loaded) < 2:
            left_out.append((clip.name, "has one distinct frame only, so nothing moves"))
            continue
        truth = None if clip.displacement is None else clip_truth(clip.displacement, loaded)
        drives.append(Drive(clip.name, clip.subject, clip.group, loaded.frames, truth))
    if not drives:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out)
        raise InputError(
            f"no clip can be evaluated ({reasons})", "give videos or folders of frames that move"
        )
    return drives, left_out


def _evaluate(
    candidate: Candidate, drives: Sequence[Drive], output: Path, max_frames: int | None, seed: int
) -> list[ClipResult]:
    """Judge every clip and draw its strip as soon as it is done."""
    from dataclasses import replace

    from ...runtime.support.progress import progress
    from .reconstruction import choose_driver, leakage, reconstruct
    from .strips import clip_strip, overview, overview_row, strip_name, write_strip

    known = [(drive.name, drive.subject, drive.group) for drive in drives]
    results: list[ClipResult] = []
    rows = []
    for index, drive in enumerate(progress(drives, label="evaluating clips")):
        result, pictures = reconstruct(candidate, drive, max_frames)
        other = choose_driver(known, index, seed)
        if other is not None:
            found, pictures.other = leakage(candidate, drive, drives[other], max_frames)
            result = replace(result, driver=drives[other].name, leakage=found)
        results.append(result)
        strip = clip_strip(result, pictures, candidate.geometry)
        write_strip(output / "strips" / strip_name(index, drive.name), strip)
        rows.append(overview_row(result, pictures))
    write_strip(output / "overview.png", overview(rows))
    return results


def _positive(text: str) -> int:
    if (number := _not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def _not_negative(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is below 0")
    return number
