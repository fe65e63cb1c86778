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
