"""The command line of this room: `animate`, `inspect`, `demo` and `doctor`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .animator import Animator
from .command_options import (
    add_job,
    add_open,
    add_reading_of_one,
    job_of,
    motion_of,
    opening_of,
    parse_landmarks,
    parse_reference,
    reading_of,
    to_people,
)
from .pipeline import Job, animate_files
from .quality import as_rows
from .still import SAMPLES
from .support.atomic_files import atomic_path
from .support.errors import EXIT_DAMAGED, ConfigError
from .support.printable import printable
from .support.verbs import Verbs, add_ray, add_verb

ANIMATE = """animate a still image with the motion of a driving clip

Animate a still image with the motion of a driving clip. First the source, which gives the picture;
then the driving clip, which gives the motion. The result carries a mark that says it is synthetic.

example:
  sonomime animate still.png driving.mp4 -o animated.mp4 --side-by-side"""
INSPECT = """say what is read from a picture, clip or folder

Say what is read from a picture, clip or folder. All frames are read, as animate reads them: what
was assumed, dropped or is damaged is said, and which region --crop auto would take. It also counts
places that look like burned-in text, which is a help, no guarantee: text can be missed, a patient's
name too.

example:
  sonomime inspect clip.dcm -o sheet.png"""
DEMO = """animate the sample images with the sample clips

Animate the sample images with the sample clips. The first video, OUT, shows one subject moved by
itself; the second, named OUT-2, one moved by another. Source, driving and synthesized pictures are
beside each other.

example:
  sonomime demo -o demo.mp4"""
MAKE_TEMPLATE = """save a driving clip's motion in a small file, without its pictures

The file is a motion template: animate takes it instead of the driving clip. `sonomime template
list` shows those that come with the package, which are given by their names.

example:
  sonomime template driving.mp4 -o motion.npz --title "quiet breathing"
  sonomime animate still.png motion.npz -o animated.mp4"""
DOCTOR = """check the installation, and say how to fix it

Check the installation, and say how to fix it.

example:
  sonomime doctor --json"""


def add_animate(verbs: Verbs) -> None:
    """`sonomime animate`."""
    parser = add_verb(verbs, "animate", ANIMATE, run_animate)
    add = parser.add_argument

    def table(text: str) -> Path:
        # What its rows have is required only without it, which argparse has no words for.
        for action in of_one_job:
            action.required = False
        return Path(text)

    # fmt: off
    of_one_job = [
        add("source", type=Path, metavar="SOURCE",
            help="the still picture to animate: an image, or one frame of a video or folder"),
        add("driving", type=Path, metavar="DRIVING",
            help="the clip whose motion it gets: a video, a folder or an image; or a motion "
            "template, NAME.npz or one of `sonomime template list`"),
        add("-o", "--output", type=Path, required=True, metavar="OUT",
            help="what to write: NAME.mp4, NAME.mkv (FFV1, lossless), NAME.dcm (DICOM, lossless), "
            "NAME.mha (MetaImage, lossless), a folder for .png frames, or NAME.png if it is one "
            "frame"),
    ]
    add("--batch", type=table, metavar="TABLE.csv",
        help="many jobs instead of SOURCE, DRIVING and -o: a row each, with the columns source, "
        "driving and output (paths from the table's folder), and any option of a job as a column, "
        "for example size. Rows whose output is there are skipped")
    add("--jobs", type=int, metavar="N",
        help="with --batch: processes that work at once (default: 1; with --ray one for each "
        "processor)")
    add_ray(parser, "with --batch: work", "the files")
    add_open(parser)
    add_job(parser)
    add("--json", action="store_true",
        help="print the result as JSON; with --batch one line for each row")
    # fmt: on


def run_animate(args: argparse.Namespace) -> int:
    """Run `sonomime animate`."""
    given = [name for name in ("source", "driving", "output") if getattr(args, name) is not None]
    if args.batch is not None:
        from .batch import run_batch

        if given:
            hint = "leave it out: the table has one for each row"
            raise ConfigError(f"--batch does not go with the {given[0]}", hint)
        if args.jobs is not None and args.jobs < 1:
            raise ConfigError(f"--jobs must be at least 1, not {args.jobs}")
        return run_batch(args)
    for name in ("jobs", "ray"):
        if getattr(args, name) is not None:
            raise ConfigError(f"--{name} is for --batch", "leave it out, or give a table")
    return _animate(args, [job_of(args)], args.json, **motion_of(args))


def _animate(args: argparse.Namespace, jobs: list[Job], as_json: bool, **options: Any) -> int:
    with Animator.open(args.bundle, **opening_of(args), **options) as animator:
        damaged, backend = False, animator.session.backend
        engine = {"backend": backend.name, "precision": backend.precision}
        for job in jobs:
            done = animate_files(animator, job, to_people)
            damaged |= done.damaged
            record = asdict(done) | {"quality": as_rows(done.quality)} | engine
            print(json.dumps(record, default=str) if as_json else done.output)
            rate = f"{done.frames / done.seconds:.1f} a second with files"
            said = f"{done.frames} frames, {rate}, by {backend.name} in {backend.precision}"
            for line in filter(None, (said, done.alignment, done.doubts)):
                to_people(line)
    return EXIT_DAMAGED if damaged else 0


def add_inspect(verbs: Verbs) -> None:
    """`sonomime inspect`."""
    parser = add_verb(verbs, "inspect", INSPECT, run_inspect)
    add = parser.add_argument
    # fmt: off
    add("path", type=Path, metavar="FILE|FOLDER", help="a picture, a clip or a folder of frames")
    add("-o", "--output", type=Path, metavar="SHEET.png",
        help="draw some of the frames, with the region (yellow) and what looks like text "
        "(magenta)")
    add_reading_of_one(parser, "frames")
    add("--json", action="store_true", help="print what was found as JSON")
    # fmt: on


def run_inspect(args: argparse.Namespace) -> int:
    """Run `sonomime inspect`: 8 if the input is damaged."""
    from .readers.inspection import inspect
    from .readers.source import warn_once

    found = inspect(args.path, reading_of(args), args.output)
    if args.json:
        print(json.dumps(asdict(found), default=str, indent=2))
    else:
        for line in found.lines():
            print(printable(line))
    sys.stdout.flush()
    for note in found.facts.notes:
        warn_once(args.path, note)
    return EXIT_DAMAGED if found.damage else 0


def add_demo(verbs: Verbs) -> None:
    """`sonomime demo`."""
    parser = add_verb(verbs, "demo", DEMO, run_demo)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("sonomime-demo.mp4"), metavar="OUT",
        help="what to write, as for animate (default: sonomime-demo.mp4)",
    )  # fmt: skip
    add_open(parser)


def run_demo(args: argparse.Namespace) -> int:
    """Run `sonomime demo`."""
    first = args.output
    second = first.parent / f"{first.stem}-2{first.suffix}"  # of any path, "." too
    jobs = [
        Job(SAMPLES / "still.png", SAMPLES / "driving.mp4", first, side_by_side=True),
        Job(SAMPLES / "lung_still.png", SAMPLES / "lung.mp4", second, side_by_side=True),
    ]
    return _animate(args, jobs, False)


def add_template(verbs: Verbs) -> None:
    """`sonomime template`."""
    parser = add_verb(verbs, "template", MAKE_TEMPLATE, run_template)
    add = parser.add_argument
    # fmt: off
    add("driving", metavar="DRIVING|list", help="the clip; or list: the package's templates")
    add("-o", "--output", type=Path, metavar="FILE.npz",
        help="the file to write; needed unless DRIVING is list")
    add_open(parser)
    add("--reference", type=parse_reference, default="first", metavar="first|N|best",
        help="as for animate: the frame with the pose that your stills will have")
    add("--landmarks", type=parse_landmarks, default="auto", metavar="auto|none|FILE",
        help="places in the reference, by which stills are aligned with it. auto (default): those "
        "that the model finds (the default model finds none); FILE: those in this CSV file whose "
        "image is reference")
    add("--title", default="", help="what moves, in a few words")
    add("--licence", default="", help="the clip's licence, and to whom credit is due")
    add_reading_of_one(parser, "driving frames")
    add("--json", action="store_true", help="print what was made, or the list, as JSON")
    # fmt: on


def run_template(args: argparse.Namespace) -> int:
    """Run `sonomime template`: 8 if the clip is damaged."""
    from .recording import make_template
    from .template import Template, shipped

    if args.driving == "list" and args.output is None:
        rows = {name: Template.load(path).facts() for name, path in shipped().items()}
        if args.json:
            print(json.dumps(rows, indent=2))
            return 0
        for name, row in rows.items():
            print(f"{name:<14} {row['seconds']:5.1f} s   {printable(row['title'])}")
        return 0
    if args.output is None or args.output.suffix.lower() != ".npz":
        raise ConfigError("a template is written to a file", "give it with -o NAME.npz")
    with (
        atomic_path(args.output) as unfinished,  # a place that cannot be written is said at once
        Animator.open(args.bundle, **opening_of(args)) as animator,
    ):
        about = {"title": args.title, "licence": args.licence}
        template, damaged = make_template(
            animator, Path(args.driving), reading_of(args), args.reference, args.landmarks, about
        )
        unfinished.write_bytes(template.data())
    row = template.facts()
    print(json.dumps({"output": str(args.output), **row}) if args.json else args.output)
    to_people(f"{row['frames']} frames, {row['seconds']:.3g} s, {row['said']}")
    return EXIT_DAMAGED if damaged else 0


def add_doctor(verbs: Verbs) -> None:
    """`sonomime doctor`."""
    parser = add_verb(verbs, "doctor", DOCTOR, run_doctor)
    add_open(parser, backend=False)
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")


def run_doctor(args: argparse.Namespace) -> int:
    """Run `sonomime doctor`: 0 when nothing failed, else the exit code of the first failure."""
    from .doctor import examine

    checks = []
    for check in examine(args.bundle, args.device):
        checks.append(check)
        if not args.json:
            print(printable(f"{check.state:<5} {check.name}: {check.detail}"), flush=True)
            if check.fix:
                print(printable(f"      fix: {check.fix}"), flush=True)
    failed = [check for check in checks if check.state == "fail"]
    if args.json:
        data = [asdict(check) for check in checks]
        print(json.dumps({"ok": not failed, "checks": data}, indent=2))
    return failed[0].exit_code if failed else 0
