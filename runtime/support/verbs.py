"""What all verbs of the command line are registered with."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

# argparse has no public name for it.
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(verbs: Verbs, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    """A parser; its text is a line for the list of verbs, a description, and examples."""
    line, description, epilog = text.split("\n\n")
    parser = verbs.add_parser(name, help=line, description=description, epilog=epilog)
    parser.set_defaults(run=run, verb_parser=parser)
    return parser


def add_ray(parser: argparse.ArgumentParser, what: str, files: str) -> None:
    """The option --ray: `what` it does there, and the `files` that all machines have to see."""
    parser.add_argument(
        "--ray", metavar="ADDRESS",
        help=f"{what} on a Ray cluster: HOST:PORT of its head, auto (this machine is part of it), "
        f"or local (one of this machine alone). All machines have to see {files} under the same "
        "paths",
    )  # fmt: skip
