"""`sonomime phantom`: registration (argparse only) and the run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PHANTOM_EXAMPLE = """example:
  sonomime phantom -o phantom/ --subjects 40 --frames 40 --seed 7 --pairs 8
  sonomime train lite --data phantom/ -o runs/phantom
  sonomime phantom -o mine/ --subject edited.json --frames 60
"""
_ANATOMIES = ("pelvic", "heart")  # a test compares them with anatomies.py, which is heavy to import
_DRAWN: dict[str, Any] = {"subjects": None, "seed": 0, "pairs": 0, "anatomy": "pelvic"}


def add_phantom(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `sonomime phantom`."""
    parser = sub.add_parser(
        "phantom",
        help="make simulated clips whose motion, keypoints and true predictions are known",
        description="Make a dataset folder of simulated ultrasound: clips, exact keypoints and "
        "displacement, and with --pairs the true prediction of one subject moved by another. A run "
        "that was interrupted goes on when the same command is given again; one seed gives the "
        "same pixels with any number of workers. Of ten subjects seven are in the split train, one "
        "in val, to choose between runs, and two in test.",
        epilog=PHANTOM_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR",
        help="folder to make, or to go on with",
    )  # fmt: skip
    parser.add_argument(
        "--subjects", type=_whole(1, 100_000), metavar="N", help="how many, each with one clip"
    )
    parser.add_argument(
        "--frames", type=_whole(1, 1000), default=60, metavar="M",
        help="of each clip; they show one whole manoeuvre, however many they are (default: 60)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=_whole(0, 2**32 - 1), metavar="S",
        help="of everything that is drawn, 0 to 2^32 - 1 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--pairs", type=_whole(0, 100_000), metavar="P",
        help="true predictions to make, between test subjects, every fifth (default: 0)",
    )  # fmt: skip
    parser.add_argument("--anatomy", choices=_ANATOMIES, help="what is shown (default: pelvic)")
    parser.add_argument(
        "--subject", type=Path, metavar="FILE.json",
        help="make one clip, of the subject that this file describes: an edited subjects/NAME.json",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=_whole(1, 1024), metavar="W",
        help="processes to render with (default: one for each CPU)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")
    parser.set_defaults(run=run_phantom)


def run_phantom(args: argparse.Namespace) -> int:
    """Run `sonomime phantom`.

    Raises:
        ConfigError: options that do not go together; the folder holds another phantom; more pairs
            than there can be.
        InputError: a subject's file that cannot be used.
        OutputError: the folder cannot be written.
    """
    import json

    from ...runtime.support.errors import ConfigError
    from .generate import Settings, generate, render_subject
    from .subject_file import read_subject

    given = [f"--{name}" for name in (*_DRAWN, "workers") if getattr(args, name) is not None]
    if args.subject is not None:
        if given:
            raise ConfigError(
                f"{given[0]} does not go with --subject, which makes one clip of one subject",
                f"leave {' and '.join(given)} out",
            )
        subject = read_subject(args.subject, args.frames)
        made = render_subject(args.output, subject, args.frames, _say)
    else:
        if args.subjects is None:
            raise ConfigError("--subjects is missing", "e.g. --subjects 40, or --subject FILE.json")
        asked = {name: getattr(args, name) for name in _DRAWN}
        asked = {name: _DRAWN[name] if value is None else value for name, value in asked.items()}
        workers = args.workers or len(os.sched_getaffinity(0))
        made = generate(args.output, Settings(frames=args.frames, **asked), workers, _say)
    rate = made.rendered / made.seconds
    if args.json:
        facts = {"folder": str(args.output), "frames": args.frames, **made._asdict()}
        print(json.dumps({**facts, "frames_per_second": rate}))
    else:
        print(args.output)
    _say(
        f"{made.clips} clips of {args.frames} frames, {made.pairs} true predictions; "
        f"{made.rendered} frames rendered in {made.seconds:.0f} s ({rate:.1f} a second)"
    )
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number within limits."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return number

    return read
