"""What each part of a matching model is worth to it: the same weights with one setting changed.

Nothing is trained: a row says what this model loses without a part that it learned with, not how
good a model would be that learned without it. Figures are those of `sonomime evaluate` with the
same --max-frames, on the split that it reads by default.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ..runtime.animator import Animator
from ..runtime.support.atomic_files import atomic_write_text
from ..runtime.support.errors import ConfigError, InputError, SonomimeError
from ..runtime.support.plain_file import sha256_file
from ..runtime.support.progress import progress
from ..training.checkpoint import Checkpoint, load_checkpoint
from ..training.evaluation.candidate import Candidate
from ..training.evaluation.command import positive
from ..training.evaluation.ground_truth.readers import read_pair
from ..training.evaluation.prediction import predict
from ..training.evaluation.prediction_report import PredictionReport
from ..training.evaluation.reconstruction import Drive, reconstruct, spread
from ..training.evaluation.reconstruction_report import ReconstructionReport
from ..training.evaluation.report import json_text
from ..training.evaluation.run import clips_to_judge, motionless, pairs_to_judge, read_clips
from ..training.evaluation.tables import Column, table
from ..training.evaluation.tracking import follow, untrackable
from ..training.evaluation.tracking_report import TrackingReport
from ..training.torch_backend import open_session
from .variants import variants

EXAMPLE = """example:
  python -m sonomime.benchmarks.ablation runs/first/checkpoint.pt --clips clips/ --pairs phantom/
"""
FOLDERS = {"reconstruction": "clips", "tracking": "labelled", "prediction": "pairs"}
"""By task, the option of its folder."""
REPORTS = {
    "reconstruction": ReconstructionReport,
    "tracking": TrackingReport,
    "prediction": PredictionReport,
}
COLUMNS: dict[str, list[Column]] = {
    "reconstruction": [
        ("L1 ratio", "reconstruction.all.methods.model.l1_ratio", 3),
        ("low-pass", "reconstruction.all.methods.model.low_pass_ratio", 3),
        ("sharpness", "reconstruction.all.methods.model.sharpness", 3),
    ],
    "tracking": [("points / hold", "tracking.all.ratio.model.mean", 3)],
    "prediction": [
        ("skill", "prediction.exact.model_skill.mean", 3),
        ("landmarks / hold", "prediction.exact.landmark_ratio.mean", 3),
    ],
}
SEED = 0  # of the reports' intervals, as `sonomime evaluate` has it

Judge = Callable[..., tuple[Any, Any]]
"""What a task does with a candidate and one clip or pair: the result, and pictures."""


def opened(checkpoint: Checkpoint, stack: ExitStack) -> Candidate:
    """As `sonomime evaluate` opens it; this family's motion is always relative.

    Raises:
        CheckpointError: the weights do not fit the configuration.
    """
    animator = stack.enter_context(Animator(open_session(checkpoint)))
    chain = animator.session.chain
    size, channels = chain.image.size, chain.image.channels
    return Candidate(animator, animator, size, channels, chain.geometry, {}, can_align=True)


def cases(
    task: str, candidate: Candidate, args: Namespace, notes: list[str]
) -> tuple[int, Iterator[Judge]]:
    """How many clips or pairs a task has, and what it does with each.

    Raises:
        InputError: nothing that can be judged.
    """
    most, option = args.max_frames, FOLDERS[task]
    asked = Namespace(data=[getattr(args, option)], split=None, alignment=None, max_pairs=None)
    if task == "prediction":
        asked.max_pairs = args.max_clips
        pairs, _, warnings = pairs_to_judge(asked, None)
        notes += [f"--{option}: {warning}" for warning in warnings]
        read = (read_pair(pair, candidate.size, candidate.channels) for pair in pairs)
        return len(pairs), (partial(predict, data=data, max_frames=most) for data in read)
    clips, left_out, warnings = clips_to_judge(asked, None)
    unfit = motionless if task == "reconstruction" else untrackable
    loaded, unread = read_clips(candidate, spread(clips, args.max_clips), unfit)
    warnings += [f"{name} is left out: {reason}" for name, reason in left_out + unread]
    notes += [f"--{option}: {warning}" for warning in warnings]
    if task == "tracking":
        return len(loaded), (partial(follow, clip=clip, max_frames=most) for _, clip in loaded)
    drives = (Drive(clip.name, clip.subject, clip.group, each.frames) for clip, each in loaded)
    return len(loaded), (partial(reconstruct, drive=drive, max_frames=most) for drive in drives)


def measure(checkpoint: Checkpoint, args: Namespace) -> dict[str, Any]:
    """`notes`, and `rows`: the means of every variant, by the tasks that have a folder.

    Raises:
        ConfigError: no folder, or a model of another family.
        InputError: no such folder, or nothing in it that can be judged.
    """
    family = checkpoint.config.model.family
    if family != "matching":
        raise ConfigError(
            f"{args.checkpoint}: is a model of the family {family}, which has other parts",
            "give a checkpoint of the family matching (preset lite)",
        )
    tasks = [task for task, option in FOLDERS.items() if getattr(args, option) is not None]
    if not tasks:
        raise ConfigError("there is no folder to measure on", "give --clips, --labelled or --pairs")
    for option in (FOLDERS[task] for task in tasks):
        if not getattr(args, option).is_dir():
            wrong = f"{getattr(args, option)} is no folder"
            raise InputError(wrong, f"check the path after --{option}")
    notes: list[str] = []
    rows: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        first, *others = variants(checkpoint)
        ways = [(first, opened(first.checkpoint, stack))]
        # Read before the others are opened: a wrong folder is refused soon.
        found = {task: cases(task, ways[0][1], args, notes) for task in tasks}
        for other in others:
            if other.alignment == "given" or "prediction" in tasks:
                ways.append((other, opened(other.checkpoint, stack)))
        for task, (count, judges) in found.items():
            predicting = task == "prediction"
            judged = [way for way in ways if predicting or way[0].alignment == "given"]
            results: dict[str, list[Any]] = {variant.name: [] for variant, _ in judged}
            jobs = ((judge, *way) for judge in judges for way in judged)
            for judge, variant, candidate in progress(jobs, count * len(judged), task):
                more = {"alignment": variant.alignment} if predicting else {}
                results[variant.name].append(judge(candidate, **more)[0])
            for name, measured in results.items():
                report = REPORTS[task]("", {}, {"seed": SEED}, measured, [], [])
                rows.setdefault(name, {"row": name})[task] = report.record["means"]
    return {"notes": notes, "rows": list(rows.values())}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(
        "python -m sonomime.benchmarks.ablation",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="of a matching model")
    for option, what in (
        ("--clips", "clips to reconstruct"),
        ("--labelled", "clips with labelled points to follow"),
        ("--pairs", "a phantom's pairs to predict, aligned by their landmarks"),
    ):
        parser.add_argument(option, type=Path, metavar="DIR", help=f"dataset folder: {what}")
    for option, default, help in (
        ("--max-frames", 4, "at most N frames of a clip, evenly spread (4)"),
        ("--max-clips", None, "at most N clips or pairs of a folder, evenly spread (all)"),
    ):
        parser.add_argument(option, type=positive, default=default, metavar="N", help=help)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all means")
    args = parser.parse_args(argv)
    try:
        checkpoint = load_checkpoint(args.checkpoint)
        found = measure(checkpoint, args)
        for note in found["notes"]:
            print(f"warning: {note}", file=sys.stderr)
        columns = [
            c for task, some in COLUMNS.items() if getattr(args, FOLDERS[task]) for c in some
        ]
        print(table([("model", "row"), *columns], found["rows"]))
        if args.json is not None:
            folders = {option: str(getattr(args, option) or "") for option in FOLDERS.values()}
            record = {
                "checkpoint": str(args.checkpoint),
                "sha256": sha256_file(args.checkpoint),
                "step": checkpoint.step,
                "settings": {**folders, "max_frames": args.max_frames, "max_clips": args.max_clips},
            }
            atomic_write_text(args.json, json_text({**record, **found}))
    except SonomimeError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
