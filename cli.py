"""The command line: `sonomime VERB`. Heavy imports happen only inside the verbs."""

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
from typing import Any, NoReturn

from . import __version__
from .benchmarks.commands import add_bench
from .export.commands import (
    add_build,
    add_engine,
    add_export,
    add_import_fomm,
    add_quantize,
    add_triton,
)
from .runtime.commands import add_animate, add_demo, add_doctor, add_inspect, add_template
from .runtime.live_commands import add_serve, add_stream
from .runtime.support.dataclass_parser import nearest
from .runtime.support.errors import ConfigError, SonomimeError
from .runtime.support.foreign_errors import as_ours
from .runtime.support.printable import printable
from .runtime.support.process import make_streams_safe, signal_behind, terminable
from .training.commands import (
    add_annotations,
    add_data,
    add_evaluate,
    add_phantom,
    add_report,
    add_study,
    add_table,
    add_train,
)

EXIT_USAGE, EXIT_INTERRUPTED, EXIT_UNEXPECTED = 2, 130, 1

_RAW = argparse.RawDescriptionHelpFormatter


class _SafeFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(f"{record.levelname.lower()}: {super().format(record)}")


class _Parser(argparse.ArgumentParser):
    """Of the program and of its verbs, whose examples keep their lines."""

    def __init__(self, *, formatter_class: Any = _RAW, **more: Any) -> None:
        super().__init__(formatter_class=formatter_class, **more)

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if wrong := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            close = nearest(wrong[1], re.findall(r"[\w-]+", wrong[2]))
            hint = f"did you mean {close!r}?" if close else hint
        elif wrong := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            close = nearest(wrong[1], self._option_string_actions)
            hint = f"did you mean {close}?" if close else hint
        elif wrong := re.search(r"argument (\S+): expected one argument", message):
            hint = f"a value that begins with - is written {wrong[1]}=VALUE; {hint}"
        _say(message, hint)
        raise SystemExit(EXIT_USAGE)

    def format_help(self) -> str:
        # A raw formatter does not wrap the description.
        self.description = fill(self.description or "", max(get_terminal_size().columns - 2, 11))
        return super().format_help()


def build_parser() -> argparse.ArgumentParser:
    """The parser with every verb; a verb's function is its default for `run`."""
    parser = _Parser(
        prog="sonomime",
        formatter_class=argparse.HelpFormatter,
        description="Animate a still ultrasound image with the motion of a driving video.",
        epilog="exit codes: 2 usage or config, 3 bundle or checkpoint, 4 backend, 5 export, "
        "6 input, 7 output, 8 done but an input was damaged or a row of --batch failed, "
        "129 terminal closed, 130 interrupted, 143 terminated",
    )
    parser.add_argument("--version", action="version", version=f"sonomime {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs: Any = parser.add_subparsers(title="verbs", metavar="VERB", dest="verb", required=True)
    for add in (
        add_animate, add_stream, add_serve, add_template, add_inspect, add_demo, add_doctor,
        add_bench, add_data, add_annotations, add_train, add_report, add_evaluate, add_table,
        add_study, add_phantom, add_export, add_quantize, add_import_fomm, add_build, add_engine,
        add_triton,
    ):  # fmt: skip
        add(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; errors are printed, never raised."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words  # before or after the verb, whose parser does not know it
    words = [word for word in words if word != "--debug"]
    make_streams_safe()
    log = logging.StreamHandler()
    log.setFormatter(_SafeFormatter("%(message)s"))
    logging.basicConfig(handlers=[log])
    with terminable():
        try:
            args, unknown = build_parser().parse_known_args(words)
            if unknown:
                args.verb_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            if Path("-") in (getattr(args, "output", None), getattr(args, "json", None)):
                hint = "give the name of a file or folder"
                raise ConfigError("cannot write to standard output (-)", hint)
            code = int(args.run(args) or 0)
            sys.stdout.flush()  # a full disk or a closed pipe fails here, not at exit
            return code
        except BaseException as error:
            if debug and not isinstance(error, SystemExit):
                traceback.print_exc()
            return _explain(error)


def _explain(error: BaseException) -> int:
    """Print an error and its hint; return the exit code."""
    if isinstance(error, SystemExit):  # argparse: --help, --version, usage
        return error.code if isinstance(error.code, int) else 0
    signal = None if isinstance(error, SonomimeError) else signal_behind(error)
    if signal is not None:
        code = int(getattr(signal, "exit_code", EXIT_INTERRUPTED))
        _say("interrupted" if code == EXIT_INTERRUPTED else "terminated", "")
        return code
    if isinstance(error, BrokenPipeError):
        # The reader of our output has left; Python would report that again at exit.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNEXPECTED
    ours = as_ours(error)
    _say(ours.message, ours.hint)
    return ours.exit_code


def _say(message: str, hint: str) -> None:
    with suppress(OSError):  # the terminal has closed: the exit code still says what happened
        print(f"error: {printable(message)}", file=sys.stderr)
        if hint:
            print(f"hint: {printable(hint)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
