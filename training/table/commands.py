"""`sonomime table`: its options. Only argparse until it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.support.verbs import Verbs, add_verb

TABLE = """train and measure several presets on the same data: the paper's Table 1

Train presets on the same data, with the same seeds and budget, evaluate each, and write table.md,
table.csv, table.json, a plot and strips of pictures for every evaluation. What is finished is kept:
give the same command again to go on after an interruption. Each row is `sonomime train` and
`sonomime evaluate`; the plan's file (docs/table.md) says with which settings.

example:
  sonomime table table.toml -o tables/first
  sonomime table table.toml -o tables/first --row fomm --row ours-ptg --max-minutes 60"""


def add_table(sub: Verbs, register_train: Callable[[Any], None]) -> None:
    """Register `sonomime table`."""
    add = add_verb(
        sub, "table", TABLE, lambda args: table_command(args, register_train)
    ).add_argument
    add("plan", type=Path, metavar="TABLE.toml", help="what is compared")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the table")
    text = "train and measure only this row now (repeatable); the table shows all that is finished"
    add("--row", action="append", default=[], metavar="NAME", help=text)
    add("--seed", action="append", type=int, default=[], metavar="N", help="the same for a seed")
    text = "train for at most M minutes in all; what is unfinished is saved"
    add("--max-minutes", type=float, metavar="M", help=text)
    add("--json", action="store_true", help="print table.json, not the table")


def table_command(args: argparse.Namespace, register_train: Callable[[Any], None]) -> int:
    """Run `sonomime table`."""
    from ...runtime.support.errors import ConfigError
    from ...runtime.support.printable import printable
    from .make import make_table
    from .page import terminal
    from .plan import read_plan

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        hint = "share the cells among machines with --row and --seed"
        raise ConfigError("a table is made by one process, not under torchrun", hint)
    plan = read_plan(args.plan)
    for option, asked, known in (("row", args.row, plan.names), ("seed", args.seed, plan.seeds)):
        for each in asked:
            if each not in known:
                there = ", ".join(map(str, known))
                raise ConfigError(f"--{option} {each} is not in the plan", f"there are: {there}")

    def say(line: str) -> None:
        print(printable(line), file=sys.stderr, flush=True)

    done = make_table(plan, args, register_train, say)
    if args.json:
        print(done.json, end="")
    elif done.sections:
        print(printable(terminal(done.sections)))
    if done.missing:
        say(f"not finished: {', '.join(done.missing)}; give the same command again to go on")
    if done.sections:
        say(f"table: {args.output / 'table.md'}")
    if done.fault is not None:
        raise done.fault
    return 0
