"""`sonomime evaluate`: its options. Only argparse until it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ...runtime.support.verbs import Verbs, add_ray, add_verb

EVALUATE = """measure a checkpoint or a bundle on clips

Measure a model in one of five tasks. Reconstruction: each clip animates its own middle frame,
compared with other methods (the still as it is, best blur, dense flow); another subject's clip
animates it too, to see whether speckle leaks. Prediction: on a phantom's pairs, one subject's clip
animates another's first frame, and the truth is known. Transfer: each clip's middle frame is
animated by another subject's clip; the truth is not known, so only sets of frames are compared.
Tracking: the model's motion finds labelled points of a clip's middle frame in its other labelled
frames. Detection: the landmarks that the model learned are looked for in labelled frames. Choose
between runs on the split val; look at test once, when you have chosen. Prints a summary; the folder
gets results.json, table.md, overview.png and strips/.

example:
  sonomime evaluate runs/first/checkpoint.pt --data clips/ --split val -o runs/first/val
  sonomime evaluate my-bundle/ --data clips/ --max-frames 20 -o quick --json
  sonomime evaluate my-bundle/ --data clips/ --ray auto --threads 2 -o all
  sonomime evaluate my-bundle/ --data phantom/ --task prediction -o predictions
  sonomime evaluate my-bundle/ --data labelled/ --task tracking -o tracking
  sonomime evaluate runs/p/checkpoint.pt --data labelled/ --task detection -o detection
  sonomime evaluate my-bundle/ --data clips/ --task transfer -o transfers \\
      --network inception=pt_inception-2015-12-05-6726825d.pth --network i3d=rgb_imagenet.pt"""


def add_evaluate(sub: Verbs) -> None:
    """Register `sonomime evaluate`."""
    parser = add_verb(sub, "evaluate", EVALUATE, _evaluate)
    add = parser.add_argument
    add("candidate", type=Path, metavar="CHECKPOINT_OR_BUNDLE", help="what to evaluate")
    text = "dataset folders, or bare folders of videos"
    add("--data", nargs="+", action="extend", type=Path, required=True, metavar="DIR", help=text)
    tasks = ["reconstruction", "prediction", "transfer", "tracking", "detection"]
    text = f"what the model has to do: {', '.join(tasks)} (default: {tasks[0]})"
    add("--task", choices=tasks, default=tasks[0], metavar="TASK", help=text)
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the report")
    text = "only clips of this split, or all (default: test, where the data has it; else all)"
    add("--split", metavar="S", help=text)
    text = "region of every clip, pixels of the original frame; auto: it is found"
    add("--crop", metavar="X,Y,W,H|auto", help=text)
    for option, what in (("--max-frames", "frames of a clip"), ("--max-pairs", "pairs")):
        text = f"at most N {what}, evenly spread: a quick look"
        add(option, type=whole(1, 10**9), metavar="N", help=text)
    add(
        "--alignment",
        choices=["given", "landmarks", "auto", "none"],
        help="for prediction and transfer: what aligns the two subjects. given: the data's "
        "landmarks and the two pictures (prediction's default where the model can); landmarks: the "
        "data's landmarks alone; auto: what the model finds by itself (transfer's default where "
        "the model can); none: nothing",
    )
    add(
        "--network",
        action="append",
        default=[],
        metavar="NAME=FILE[,FILE]",
        help="a network that judges the pictures, and its weights; once for each. lpips_alex and "
        "lpips_vgg (trunk, linear layers): LPIPS; inception: FID and KID; i3d: FVD; vgg19, "
        "squeezenet: stand-ins; any other name: a metric in the layout of LPIPS. FILE@SHA256 takes "
        "a file that is not the published one. docs/evaluating.md says who publishes the files",
    )
    text = "for the choice of the other subject's clip and for the intervals (default: 0)"
    add("--seed", type=whole(0, 2**63 - 1), default=0, help=text)
    text = "clips or pairs that are measured at once, each by a process of its own (default: one)"
    add("--jobs", type=whole(1, 1024), metavar="N", help=text)
    add_ray(parser, "measure", "data and model")
    text = (
        "CPU threads of each job (default: physical cores, shared out among --jobs): the last bit "
        "of a number may depend on it"
    )
    add("--threads", type=whole(1, 1024), metavar="N", help=text)
    add("--json", action="store_true", help="print results.json, not the summary")


def _evaluate(args: argparse.Namespace) -> int:
    from .run import run

    return run(args)


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `low` to `high`."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            problem = f"{text!r} is not a whole number from {low} to {high}"
            raise argparse.ArgumentTypeError(problem)
        return int(text)

    return number
