"""`sonomime evaluate` as a test calls it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sonomime.training.evaluation.command import add_evaluate

PREDICTION = ("--task", "prediction")


def parse(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_evaluate(parser.add_subparsers())
    return parser.parse_args(["evaluate", *map(str, words)])


def evaluate(output: Path, *words: object) -> Any:
    """results.json of `sonomime evaluate`, whose table.md is found to be well formed."""
    args = parse(*words, "-o", output)
    assert args.run(args) == 0
    text = (output / "table.md").read_text()
    tables = [part for part in text.split("\n\n") if part.startswith("| ")]
    assert len(tables) >= 3
    for each in tables:
        assert len({line.replace("\\|", "").count("|") for line in each.splitlines()}) == 1, each
    found = (output / "results.json").read_text()
    record = json.loads(found)
    assert "NaN" not in found
    assert ("## Left out" in text) == bool(record["left_out"])
    assert ("## Warnings" in text) == bool(record["warnings"])
    return record
