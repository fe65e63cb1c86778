"""The command line: `sonomime VERB`. Heavy imports happen inside the verbs, and only there."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import TYPE_CHECKING, NoReturn, cast

from . import __version__
from .benchmarks.commands import add_bench
from .export.commands import add_build, add_engine, add_export, add_import_fomm
from .runtime.support.dataclass_parser import nearest
from .runtime.support.errors import (
    WRITE_ERRNOS,
    BackendError,
    ConfigError,
    InputError,
    SonomimeError,
    output_error,
)
from .runtime.support.process import Terminated, mend_streams, terminable
from .training.commands import add_evaluate, add_phantom, add_train

if TYPE_CHECKING:
    from .runtime.animator import Animator
    from .runtime.media.frames import Crop
    from .runtime.pipeline import Job

EXIT_USAGE, EXIT_INTERRUPTED, EXIT_UNEXPECTED = 2, 130, 1

# Which extra brings a module that may be missing.
_EXTRAS = {"onnxruntime": "cpu", "torch": "train", "onnx": "train", "onnxscript": "train"}
_EXTRAS |= {"yaml": "train", "tensorrt_rtx_bindings": "rtx"}

Subparsers = argparse._SubParsersAction  # the type that argparse gives no public name


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            close = nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
            hint = f"did you mean {close!r}?" if close else hint
        _say(message, hint)
        raise SystemExit(EXIT_USAGE)

    def format_help(self) -> str:
        # Verbs ask for raw text, for the sake of their examples; prose is wrapped all the same.
        self.description = fill(self.description or "", max(get_terminal_size().columns - 2, 11))
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """The parser with every verb; a verb's function is its default for `run`."""
    parser = _Parser(
        prog="sonomime",
        description="Animate a still ultrasound image with the motion of a driving video.",
        epilog="exit codes: 2 usage or config, 3 bundle or checkpoint, 4 backend, 5 export, "
        "6 input, 7 output, 130 interrupted, 143 terminated",
    )
    parser.add_argument("--version", action="version", version=f"sonomime {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the trace of an error")
    verbs = cast(
        "Subparsers[argparse.ArgumentParser]",
        parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True),
    )
    for add in (
        add_animate, add_demo, add_doctor, add_bench,
        add_train, add_evaluate, add_phantom, add_export, add_import_fomm, add_build, add_engine,
    ):  # fmt: skip
        add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are printed, never raised."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Wherever it stands: the verbs' own parsers know nothing of it.
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    mend_streams()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    with terminable():
        try:
            args = build_parser().parse_args(words)
            _check_output(args)
            code = int(args.run(args) or 0)
            sys.stdout.flush()  # a full disk or a reader that has left shows here, not at exit
            return code
        except BaseException as error:
            if debug and not isinstance(error, SystemExit):
                traceback.print_exc()
            return _explain(error)


def _check_output(args: argparse.Namespace) -> None:
    """Refuse `-`, by which other programs mean standard output: it would become a file's name."""
    if Path("-") in (getattr(args, "output", None), getattr(args, "json", None)):
        raise ConfigError(
            "cannot write to standard output (-)", "give the name of a file or folder"
        )


def _explain(error: BaseException) -> int:
    """Say what went wrong in a sentence and a hint; the exit code."""
    if isinstance(error, SystemExit):  # argparse: --help, --version, usage
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, Terminated):
        _say("terminated", "")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        _say("interrupted", "")
        return EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has left; Python would complain once more when it exits.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    if isinstance(error, ModuleNotFoundError) and error.name:
        extra = _EXTRAS.get(error.name.partition(".")[0])
        if extra:
            hint = f'pip install "sonomime[{extra}]"'
            error = BackendError(f"{error.name} is not installed, which this verb needs", hint)
    if isinstance(error, OSError) and error.strerror:
        if error.errno in WRITE_ERRNOS:
            error = output_error(error.filename or "the output", error)
        elif error.filename is not None:
            hint = "check the path and its permissions"
            error = InputError(f"{error.filename}: {error.strerror}", hint)
    if isinstance(error, SonomimeError):
        _say(error.message, error.hint)
        return error.exit_code
    _say(f"{type(error).__name__}: {error}", "this is a defect; --debug shows where: report it")
    return EXIT_UNEXPECTED


def _say(message: str, hint: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr, flush=True)


def _verb(
    verbs: Subparsers[argparse.ArgumentParser], name: str, summary: str, example: str,
    run: Callable[[argparse.Namespace], int], more: str = "",
) -> argparse.ArgumentParser:  # fmt: skip
    parser = verbs.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}".strip(),
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="B", help="bundle folder (the default one)")
    parser.add_argument(
        "--backend", default="auto", metavar="NAME",
        help="auto (default: the best there is), cpu, ort-cuda, tensorrt, rtx",
    )  # fmt: skip
    parser.add_argument(
        "--device",
        type=int,
        metavar="N",
        help="number of the GPU, from 0 (default: 0, if there is one)",
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (physical cores)")


def add_animate(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """`sonomime animate`."""
    parser = _verb(
        verbs, "animate", "animate a still image with the motion of a driving clip",
        "sonomime animate still.png driving.mp4 -o animated.mp4 --side-by-side",
        run_animate, "The source, which gives the picture, comes first; then the driving clip, "
        "which gives the motion. The result has a mark that calls it synthetic.",
    )  # fmt: skip
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="what is to move: image, video or folder"
    )
    parser.add_argument(
        "driving", type=Path, metavar="DRIVING", help="how it is to move: video, folder or image"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help="NAME.mp4, NAME.mkv (FFV1, exact), or a folder of .png frames",
    )  # fmt: skip
    _add_open(parser)
    parser.add_argument(
        "--motion", choices=("relative", "absolute"), default="relative",
        help="relative (default): add the driving movement; absolute: take the driving positions",
    )  # fmt: skip
    parser.add_argument(
        "--reference", type=_reference, default="first", metavar="first|N|best",
        help="driving frame whose pose is the source's: the first (default), number N from 0, or "
        "the one most like the source's",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=_scale, default=1.0, metavar="S|hull",
        help="factor of relative motion (1), or hull: by the size of the two anatomies",
    )  # fmt: skip
    parser.add_argument("--smooth", action="store_true", help="One-Euro smoothing of the motion")
    parser.add_argument("--min-cutoff", type=float, metavar="HZ", help="smoothing at rest (1.5)")
    parser.add_argument("--beta", type=float, metavar="B", help="less smoothing when fast (10)")
    parser.add_argument(
        "--shading", choices=("off", "low", "full"), default="full",
        help="how much of the driving clip's change of light is taken on (full)",
    )  # fmt: skip
    parser.add_argument("--crop", type=_crop, metavar="X,Y,W,H", help="of the driving frames")
    parser.add_argument("--source-crop", type=_crop, metavar="X,Y,W,H", help="of the source")
    parser.add_argument(
        "--source-frame", type=int, metavar="N",
        help="which frame is the source when SOURCE is a clip (0, the first)",
    )  # fmt: skip
    parser.add_argument(
        "--side-by-side", action="store_true", help="show source | driving | synthesized"
    )
    parser.add_argument(
        "--size", default="source", metavar="source|model|WxH",
        help="of the picture, up to 1920 a side: the source's own (default), as in the model's "
        "square, or WIDTHxHEIGHT; composed sharply over the source where the bundle can, else "
        "the model's frame is enlarged",
    )  # fmt: skip
    parser.add_argument("--no-mark", action="store_true", help="leave the synthetic mark out")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run_animate(args: argparse.Namespace) -> int:
    """Run `sonomime animate`."""
    from .runtime.animator import Animator
    from .runtime.compose import parse_size
    from .runtime.pipeline import Job
    from .runtime.smoothing import Smoothing

    if args.motion == "absolute" and (args.scale != 1.0 or args.reference != "first"):
        option = "--scale" if args.scale != 1.0 else "--reference"
        raise ConfigError(
            f"{option} has no effect with --motion absolute",
            "leave it out, or use --motion relative",
        )
    smooth = None
    if args.smooth or args.min_cutoff is not None or args.beta is not None:
        default = Smoothing()
        smooth = Smoothing(
            default.min_cutoff if args.min_cutoff is None else args.min_cutoff,
            default.beta if args.beta is None else args.beta,
        )
    job = Job(
        args.source, args.driving, args.output, args.reference, args.crop, args.source_crop,
        args.source_frame, args.side_by_side, not args.no_mark, parse_size(args.size),
    )  # fmt: skip
    animator = Animator.open(
        args.bundle, args.backend, motion=args.motion, smooth=smooth, threads=args.threads,
        scale=args.scale, device=args.device, shading=args.shading,
    )  # fmt: skip
    return _animate(animator, job, args.json)


def _animate(animator: Animator, job: Job, as_json: bool) -> int:
    from .runtime.pipeline import animate_files
    from .runtime.quality import as_rows, summary

    with animator:
        done = animate_files(animator, job)
    record = asdict(done) | {"quality": as_rows(done.quality)}
    print(json.dumps(record, default=str) if as_json else done.output)
    rate = done.frames / done.seconds
    print(f"{done.frames} frames, {rate:.1f} a second with files", file=sys.stderr)
    if doubts := summary(done.quality):
        print(doubts, file=sys.stderr)
    return 0


def add_demo(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """`sonomime demo`."""
    parser = _verb(
        verbs, "demo", "animate the sample image with the sample clip", "sonomime demo -o demo.mp4",
        run_demo, "Source, driving and synthesized picture are shown beside each other.",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("sonomime-demo.mp4"), metavar="OUT",
        help="as for animate (sonomime-demo.mp4)",
    )  # fmt: skip
    _add_open(parser)


def run_demo(args: argparse.Namespace) -> int:
    """Run `sonomime demo`."""
    from .runtime.animator import Animator
    from .runtime.pipeline import demo_job

    job = demo_job(args.output)
    animator = Animator.open(args.bundle, args.backend, threads=args.threads, device=args.device)
    return _animate(animator, job, False)


def add_doctor(verbs: Subparsers[argparse.ArgumentParser]) -> None:
    """`sonomime doctor`."""
    parser = _verb(
        verbs, "doctor", "check the installation, and say how to fix it",
        "sonomime doctor --json", run_doctor,
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, metavar="B", help="bundle folder (the default one)")
    parser.add_argument(
        "--device",
        type=int,
        metavar="N",
        help="number of the GPU, from 0 (default: 0, if there is one)",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run_doctor(args: argparse.Namespace) -> int:
    """Run `sonomime doctor`: 0 when nothing failed, else the exit code of the first failure."""
    from .runtime.doctor import as_data, examine

    checks = []
    for check in examine(args.bundle, args.device):
        checks.append(check)
        if not args.json:
            print(f"{check.state:<5} {check.name}: {check.detail}", flush=True)
            if check.fix:
                print(f"      fix: {check.fix}", flush=True)
    if args.json:
        print(json.dumps(as_data(checks), indent=2))
    return next((check.exit_code for check in checks if check.state == "fail"), 0)


def _reference(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _scale(text: str) -> str | float:
    if text == "hull":
        return text
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"cannot read the scale {text!r}", "a number, or hull") from None


def _crop(text: str) -> Crop:
    from .runtime.media.frames import parse_crop

    return parse_crop(text)


if __name__ == "__main__":
    sys.exit(main())
