"""Options that several verbs of this room have in common."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from .backends import ALIASES, PRECISIONS, PREFERENCE, resolve_threads
from .compose import parse_size
from .media.frames import parse_crop
from .media.levels import parse_window
from .options import Smoothing
from .pipeline import Job
from .readers.reading import Reading, parse_rate
from .support.errors import ConfigError, InputError
from .support.printable import printable


def add_reading(parser: argparse.ArgumentParser, what: str, prefix: str = "") -> None:
    """The options that say how one input is read; `reading_of` collects them."""
    add = parser.add_argument
    # fmt: off
    add(f"--{prefix}crop", type=parse_crop, metavar="X,Y,W,H|auto",
        help=f"use this part of the {what}, in pixels of the whole frame; auto: the ultrasound "
        "region, which is found")
    add(f"--{prefix}window", type=parse_window, metavar="LOW,HIGH",
        help=f"values of the {what} that are shown black and white (default: as the file says, or "
        "by the first frames)")
    add(f"--{prefix}region", type=int, metavar="N",
        help=f"where the {what} are DICOM: number of the ultrasound region to use, from 0 "
        "(default: the largest)")
    # fmt: on


def add_reading_of_one(parser: argparse.ArgumentParser, what: str) -> None:
    """All of them, for a verb that reads one input."""
    add_reading(parser, what)
    add = parser.add_argument
    # fmt: off
    add("--fps", type=parse_rate, metavar="N", help="frames a second, whatever the file says")
    # fmt: on
    add_care(parser)


def add_care(parser: argparse.ArgumentParser) -> None:
    """How careful to be with what is read."""
    add = parser.add_argument
    # fmt: off
    add("--mask-outside-region", action="store_true",
        help="keep pictures whole, but black outside of the ultrasound region: names of patients "
        "often stand there")
    add("--on-damage", choices=("keep", "skip", "stop"), default="keep",
        help="what to do where a clip is damaged. keep (default): use what comes before, and leave "
        "with exit code 8; skip: leave damaged frames out; stop: an error")
    add("--strict", action="store_true",
        help="stop with an error where something would be assumed or dropped, or is damaged")
    # fmt: on


def add_burned_in(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--allow-burned-in", action="store_true",
        help="write DICOM though the source's file says that it shows who was examined",
    )  # fmt: skip


def reading_of(args: argparse.Namespace, prefix: str = "") -> Reading:
    """How to read an input, by the options of `add_reading` and those of all inputs."""
    given = {name: getattr(args, prefix + name) for name in ("crop", "window", "region")}
    return Reading(
        **given, fps=None if prefix else args.fps, mask=args.mask_outside_region,
        on_damage=args.on_damage, strict=args.strict, timed=not prefix,
        option="--" + prefix.replace("_", "-"),
    )  # fmt: skip


def add_open(parser: argparse.ArgumentParser, backend: bool = True) -> None:
    """The options that open a bundle."""
    add = parser.add_argument
    # fmt: off
    add("--bundle", type=Path, metavar="B", help="folder of the model (default: the one included)")
    add("--device", type=int, metavar="N",
        help="number of the GPU, from 0 (default: 0, if there is a GPU)")
    if backend:
        add("--backend", default="auto", metavar="NAME",
            help="auto (default: the fastest available), cpu, openvino, ort-cuda, tensorrt, rtx")
        add("--precision", choices=PRECISIONS,
            help="what to compute in (default: what the bundle holds; with auto, whatever is "
            "fastest here). bf16 is for openvino, on CPUs that have it")
        add("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    # fmt: on


def opening_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Animator.open`, besides the bundle."""
    return {name: getattr(args, name) for name in ("backend", "threads", "device", "precision")}


def opening_on_ray(args: argparse.Namespace) -> dict[str, Any]:
    """The same on a Ray cluster, where a worker has one thread if nothing else is said.

    Raises:
        ConfigError: --device, which Ray chooses; a wrong number of threads.
    """
    if args.device is not None:
        raise ConfigError("--device has no effect with --ray", "leave it out: Ray chooses the GPU")
    return opening_of(args) | {
        "threads": resolve_threads(1 if args.threads is None else args.threads)
    }


def gpus_of(backend: str) -> int:
    """How many GPUs a backend takes."""
    return int(ALIASES.get(backend, backend) in PREFERENCE)


def add_motion(parser: argparse.ArgumentParser) -> None:
    """The options that say how the motion is used; `motion_of` collects them."""
    add = parser.add_argument
    # fmt: off
    add("--motion", choices=("relative", "absolute"), default="relative",
        help="relative (default): move the source as the driving clip moves; absolute: take the "
        "driving clip's positions themselves")
    add("--scale", type=parse_scale, default=1.0, metavar="S|hull",
        help="make relative motion S times as large (default: 1); hull (keypoint models only): by "
        "as much as one anatomy is larger than the other")
    add("--smooth", action="store_true", help="smooth the motion (One-Euro filter)")
    add("--min-cutoff", type=float, metavar="HZ",
        help="smoothing at rest: the lower, the smoother (default: 1.5)")
    add("--beta", type=float, metavar="B",
        help="how fast smoothing gives way to quick motion (default: 10)")
    add("--shading", choices=("off", "low", "full"), default="full",
        help="how much of the driving clip's change in brightness to take over (default: full)")
    # fmt: on


def motion_of(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `Animator.open`; ConfigError for options that have no effect."""
    if args.motion == "absolute" and (args.scale != 1.0 or args.reference != "first"):
        option = "--scale" if args.scale != 1.0 else "--reference"
        hint = "leave it out, or use --motion relative"
        raise ConfigError(f"{option} has no effect with --motion absolute", hint)
    wanted = {name: getattr(args, name) for name in Smoothing._fields}
    given = {name: value for name, value in wanted.items() if value is not None}
    smooth = Smoothing(**given) if args.smooth or given else None
    return {
        "motion": args.motion, "scale": args.scale, "shading": args.shading, "smooth": smooth,
    }  # fmt: skip


def to_people(line: str) -> None:
    """Print a line that no program reads."""
    print(printable(line), file=sys.stderr)


def add_job(parser: argparse.ArgumentParser) -> None:
    """The options of one job of `animate`: those that differ from row to row of a batch."""
    add = parser.add_argument
    # fmt: off
    add_motion(parser)
    add("--reference", type=parse_reference, default="first", metavar="first|N|best",
        help="the driving frame that shows the source's pose: the first (default), number N "
        "counted from 0, or best: with the default model the frame nearest to all others, with a "
        "keypoint model the one most like the source")
    add_reading(parser, "driving frames")
    add_reading(parser, "source", "source-")
    add("--fps", type=parse_rate, metavar="N",
        help="frames a second of the driving clip, whatever the file says")
    add_care(parser)
    add("--keep-colour", action="store_true",
        help="stop with an error if the result would lose the source's colours")
    add_burned_in(parser)
    add("--source-frame", type=int, metavar="N",
        help="which frame to animate if SOURCE is a clip (default: 0, the first)")
    add("--landmarks", type=parse_landmarks, default="auto", metavar="auto|none|FILE",
        help="how to align source and reference. auto (default): match the two pictures; FILE: "
        "also use the landmarks in this CSV file; none: do not align. The file has the columns "
        "image,keypoint,x,y: image is source or reference, x and y are pixels before any crop. It "
        "cannot be combined with --reference best, which may choose another frame")
    add("--debug-picture", type=Path, metavar="FILE.png",
        help="draw the alignment: where in the reference each place of the source takes its motion "
        "from")
    add("--side-by-side", action="store_true",
        help="show source, driving and synthesized frames beside each other")
    add("--size", type=parse_size, default="source", metavar="source|model|WxH",
        help="size of the result, at most 1920 pixels a side: the source's own (default), the "
        "model's (256 pixels on the longer side with the default model), or WIDTHxHEIGHT. As sharp "
        "as the source if the bundle can do that, else the model's frame is enlarged")
    add("--no-mark", dest="mark", action="store_false", help="leave the synthetic mark out")
    # fmt: on


def job_of(args: argparse.Namespace) -> Job:
    """The job, by the options of `add_job` and its three files."""
    readings = {"read_source": reading_of(args, "source_"), "read_driving": reading_of(args)}
    given = vars(args) | readings
    return Job(**{field.name: given[field.name] for field in fields(Job)})


def parse_reference(text: str) -> str | int:
    return int(text) if text.removeprefix("-").isdecimal() else text


def parse_landmarks(text: str) -> str | Path:
    if text in ("auto", "none"):
        return text
    if not Path(text).exists() or Path(text).is_dir():
        hint = "auto, none, or a CSV file with image,keypoint,x,y"
        raise InputError(f"there is no file {text!r} to read landmarks from", hint)
    return Path(text)


def parse_scale(text: str) -> str | float:
    try:
        return text if text == "hull" else float(text)
    except ValueError:
        raise ConfigError(f"cannot read the scale {text!r}", "a number, or hull") from None
