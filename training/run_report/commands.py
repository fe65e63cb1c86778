"""`sonomime report`: its options. Only argparse until it runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...runtime.support.verbs import Verbs, add_verb

REPORT = """show what a training run did, or several: curves, pictures, warnings

Make one HTML file, which needs no network, of what a run of `sonomime train` has left so far:
settings, warnings, curves of all losses, the training pictures with a slider, and where each
keypoint went. The run may still be going. Several runs are drawn beside each other. `sonomime
train` writes RUN/report.html itself, with each checkpoint.

example:
  sonomime report runs/first
  sonomime report runs/first runs/second -o comparison.html
  sonomime report runs/first --json"""


def add_report(sub: Verbs) -> None:
    """Register `sonomime report`."""
    add = add_verb(sub, "report", REPORT, report_command).add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="folder of a run")
    text = "where to write the page (default: RUN/report.html)"
    add("-o", "--output", type=Path, metavar="PAGE.html", help=text)
    add("--json", action="store_true", help="print a summary as JSON; write a page only with -o")


def report_command(args: argparse.Namespace) -> int:
    """Run `sonomime report`."""
    import json

    from ...runtime.support.errors import ConfigError
    from ...runtime.support.printable import printable
    from .page import PAGE, write_report
    from .records import read_runs, summary

    output = args.output
    if output is None and not args.json:
        if len(args.runs) > 1:
            raise ConfigError("several runs, and no place for their page", "add -o PAGE.html")
        output = args.runs[0] / PAGE
    runs = read_runs(args.runs) if output is None else write_report(args.runs, output)
    if args.json:
        found = [summary(run) for run in runs]
        print(json.dumps(found[0] if len(found) == 1 else found, indent=1))
    for run in runs:
        for each in () if args.json else run.warnings:
            print(printable(f"{run.label}: step {each['step']}: {each['what']}"))
    if output is not None:
        print(printable(f"report: {output}"), file=sys.stderr if args.json else sys.stdout)
    return 0
