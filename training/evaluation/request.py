"""What was asked of an evaluation: its folder, its settings and its command, for the report."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from ...runtime.support.errors import output_errors


def make_output(folder: Path) -> None:
    """Make the report's folder at once, not after minutes of work. OutputError when it cannot."""
    with output_errors(folder):
        (folder / "strips").mkdir(parents=True, exist_ok=True)


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
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
    return {**settings, "seed": args.seed}


def command_line(args: argparse.Namespace) -> str:
    """The command that asks for this evaluation again."""
    words = ["sonomime", "evaluate", str(args.candidate), "--data", *map(str, args.data)]
    words += ["--task", args.task, "-o", str(args.output), "--seed", str(args.seed)]
    for option, value in (
        ("--split", args.split),
        ("--crop", args.crop),
        ("--max-frames", args.max_frames),
        ("--max-pairs", args.max_pairs),
    ):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
