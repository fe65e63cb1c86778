"""`sonomime evaluate`: its options. Only argparse until it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

EVALUATE_EXAMPLE = """example:
  sonomime evaluate runs/first/checkpoint.pt --data clips/ --split val -o runs/first/val
  sonomime evaluate my-bundle/ --data clips/ --max-frames 20 -o quick --json
  sonomime evaluate my-bundle/ --data phantom/ --task prediction -o predictions
  sonomime evaluate my-bundle/ --data labelled/ --task tracking -o tracking
"""


def add_evaluate(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `sonomime evaluate`."""
    parser = sub.add_parser(
        "evaluate",
        help="measure a checkpoint or a bundle on clips",
        description="Measure a model in one of three tasks. Reconstruction: each clip animates "
        "its own middle frame, compared with other methods (the still as it is, best blur, dense "
        "flow); another subject's clip animates it too, to see whether speckle leaks. Prediction: "
        "on a phantom's pairs, one subject's clip animates another's first frame, and the truth "
        "is known. Tracking: the model's motion finds labelled points of a clip's middle frame in "
        "its other labelled frames. Choose between runs on the split val; look at test once, when "
        "you have chosen. Prints a summary; the folder gets results.json, table.md, overview.png "
        "and strips/.",
        epilog=EVALUATE_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "candidate", type=Path, metavar="CHECKPOINT_OR_BUNDLE", help="what to evaluate"
    )
    parser.add_argument(
        "--data", nargs="+", type=Path, required=True, metavar="DIR",
        help="dataset folders, or bare folders of videos",
    )  # fmt: skip
    tasks = ["reconstruction", "prediction", "tracking"]
    parser.add_argument(
        "--task", choices=tasks, default=tasks[0],
        help="what the model has to do: see above (default: reconstruction)",
    )  # fmt: skip
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
    for option, what in (("--max-frames", "frames of a clip"), ("--max-pairs", "predicted pairs")):
        meaning = f"at most N {what}, evenly spread: a quick look"
        parser.add_argument(option, type=_at_least(1), metavar="N", help=meaning)
    parser.add_argument(
        "--alignment",
        choices=["given", "landmarks", "auto", "none"],
        help="for prediction: what aligns the two subjects. given: the data's landmarks and the "
        "two pictures (the default where the model can); landmarks: the data's landmarks alone; "
        "auto: what the model finds by itself; none: nothing",
    )
    parser.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        help="for the choice of the other subject's clip and for the intervals (default: 0)",
    )
    parser.add_argument("--json", action="store_true", help="print results.json, not the summary")
    parser.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from .run import run

    return run(args)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return number
