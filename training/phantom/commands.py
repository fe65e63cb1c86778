"""`sonomime phantom`: registration (argparse only) and the run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...runtime.support.verbs import Verbs, add_ray, add_verb
from ..evaluation.command import whole

PHANTOM = """make simulated clips whose motion, keypoints and true predictions are known

Make a dataset folder of simulated ultrasound: clips, exact keypoints and displacement, and with
--pairs the true prediction of one subject moved by another. If a run is interrupted, give the same
command again to continue it. A seed gives the same pixels with any number of jobs. Of ten
subjects seven are in the split train, one in val (to choose between runs), and two in test.

example:
  sonomime phantom -o phantom/ --subjects 40 --frames 40 --seed 7 --pairs 8
  sonomime train lite --data phantom/ -o runs/phantom
  sonomime phantom -o phantom/ --subjects 1000 --ray auto
  sonomime phantom -o mine/ --subject edited.json --frames 60"""
_ANATOMIES = ("pelvic", "heart")  # a test compares them with ANATOMIES, which is heavy to import
_DRAWN = {"subjects": None, "seed": 0, "pairs": 0, "anatomy": "pelvic", "jobs": None, "ray": None}
"""Options that --subject excludes, and their defaults."""


def add_phantom(sub: Verbs) -> None:
    """Register `sonomime phantom`."""
    parser = add_verb(sub, "phantom", PHANTOM, run_phantom)

    add = parser.add_argument

    def add_whole(option: str, low: int, high: int, text: str, default: int | None = None) -> None:
        add(option, type=whole(low, high), metavar="N", default=default, help=text)

    text = "folder to make or to continue"
    add("-o", "--output", type=Path, required=True, metavar="DIR", help=text)
    text = "how many, with one clip each; needed unless --subject is given"
    add_whole("--subjects", 1, 100_000, text)
    text = "frames of each clip, which always shows one whole manoeuvre (default: 60)"
    add_whole("--frames", 1, 1000, text, 60)
    text = "seed of everything that is drawn, 0 to 2^32 - 1 (default: 0)"
    add_whole("--seed", 0, 2**32 - 1, text)
    text = "true predictions to make, between test subjects (default: 0)"
    add_whole("--pairs", 0, 100_000, text)
    add("--anatomy", choices=_ANATOMIES, help="what is shown (default: pelvic)")
    text = "make one clip, of the subject in this file: an edited subjects/NAME.json"
    add("--subject", type=Path, metavar="FILE.json", help=text)
    text = "clips that are rendered at once (default: one for each processor)"
    add_whole("--jobs", 1, 1024, text)
    add_ray(parser, "render", "the folder")
    add("--json", action="store_true", help="print what was made as JSON")


def run_phantom(args: argparse.Namespace) -> int:
    """Run `sonomime phantom`. Raises ConfigError for options that do not go together, and what
    `read_subject` and `generate` raise."""
    import json

    from ...runtime.support.errors import ConfigError
    from .generate import Settings, generate, render_subject
    from .subject import read_subject

    given = {name: value for name in _DRAWN if (value := getattr(args, name)) is not None}
    if args.subject is None:
        if args.subjects is None:
            raise ConfigError("--subjects is missing", "e.g. --subjects 40, or --subject FILE.json")
        drawn = _DRAWN | given
        jobs, ray = drawn.pop("jobs"), drawn.pop("ray")
        made = generate(args.output, Settings(frames=args.frames, **drawn), jobs, ray)
    elif names := [f"--{name}" for name in given]:
        fault = f"{names[0]} does not go with --subject, which makes one clip of one subject"
        raise ConfigError(fault, f"leave {' and '.join(names)} out")
    else:
        subject = read_subject(args.subject, args.frames)
        made = render_subject(args.output, subject, args.frames)
    rate = made.rendered / made.seconds
    facts = {"folder": str(args.output), "frames": args.frames, **made._asdict()}
    print(json.dumps(facts | {"frames_per_second": rate}) if args.json else args.output)
    print(
        f"{made.clips} clips of {args.frames} frames ({made.clips_before} were there already), "
        f"{made.pairs} true predictions ({made.pairs_before}); "
        f"{made.rendered} frames rendered in {made.seconds:.0f} s ({rate:.1f} a second)",
        file=sys.stderr,
    )
    return 0
