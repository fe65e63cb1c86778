"""The command line: `sonomime VERB`. Heavy imports happen inside the verbs, and only there."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from shutil import get_terminal_size
from textwrap import fill
from typing import NoReturn, cast

from . import __version__
from .benchmarks.commands import add_bench
from .export.commands import add_build, add_engine, add_export, add_import_fomm
from .runtime.commands import add_animate, add_demo, add_doctor
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


if __name__ == "__main__":
    sys.exit(main())
