"""Training and evaluation of a table, faked: they take no time."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from lively import SMALL_LITE, lively_checkpoint

from sonomime.runtime.support.errors import (
    SonomimeError,
)
from sonomime.training.checkpoint import Checkpoint
from sonomime.training.commands import add_train
from sonomime.training.evaluation.loop import Frame
from sonomime.training.evaluation.strips import Sketch

PLAN = """
rows = [{name = "fomm"}, {name = "lite"}]
seeds = [0, 1]
size = 128
data = ["clips"]
set = ["train.max_steps=40"]
[[evaluations]]
name = "real"
task = "reconstruction"
data = ["test"]
"""
#: By row and seed, what each clip's L1 is; three subjects, the last with two clips.
L1 = {("fomm", 0): [4, 2, 6, 8], ("fomm", 1): [6, 2, 6, 8], ("lite", 0): [2, 1, 3, 4]}
OWN_MOTION = {"fomm": "absolute", "lite": "relative"}
SUBJECTS = ["a", "b", "c", "c"]
LITE = lively_checkpoint("lite", SMALL_LITE)


def record(row: str, seed: int, steps: int, data: str) -> dict[str, Any]:
    values = L1.get((row, seed), L1["lite", 0])
    clips = [
        {"clip": f"{i}", "subject": subject, "methods": {"model": measures(value)}}
        for i, (subject, value) in enumerate(zip(SUBJECTS, values, strict=True))
    ]
    if row == "lite":  # in another order
        clips.reverse()
    value = {"value": 10.0 * values[0], "low": 1.0 + seed, "high": None}
    return {
        "candidate": {"step": str(steps), "own_motion": OWN_MOTION[row]},
        "settings": {"task": "reconstruction", "data": data},
        "clips": clips,
        "distances": [
            {"measure": "vgg_distance", "statistic": "mean", "methods": {"model": {"mean": 0}}},
            {"measure": "fd_squeeze", "statistic": "frechet", "methods": {"model": value}},
            {"measure": "kd_squeeze", "statistic": "kernel", "methods": {"model": value}},
        ],
    }


def measures(value: float) -> dict[str, Any]:
    """Of a clip; in one the agreement is not defined."""
    agreement = None if value == 8 else value
    perceptual = {"vgg_distance": value / 2}
    return {"l1": value, "ssim": None, "motion_agreement": agreement, "perceptual": perceptual}


class Fakes:
    """Stand for training and evaluation, which take no time; ``done`` says what was asked for."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fault: SonomimeError | None = None  # of fomm's training
        self.said: list[str] = []

    def register_train(self, sub: Any) -> None:
        add_train(sub)
        sub.choices["train"].set_defaults(run=self.train)

    def train(self, args: argparse.Namespace) -> None:
        """Stops at half if there is a limit."""
        folder = args.output
        folder.mkdir(parents=True, exist_ok=True)
        row, seed = folder.parts[-3:-1]
        self.done.append(f"train {row} {seed}{' again' if args.resume else ''}")
        if self.fault and row == "fomm":
            raise self.fault
        steps = 20 if args.max_minutes else 40
        Checkpoint(LITE.config, steps, LITE.weights).save(folder / "checkpoint.pt")

    def evaluate(self, args: argparse.Namespace, keep: Callable[[str, Sketch], None]) -> None:
        row, seed = args.output.parts[-3:-1]
        self.done.append(f"evaluate {row} {seed}")
        picture = np.full((128, 128), 40 if row == "fomm" else 200, np.uint8)
        frames = [Frame(i, picture // 2, picture // 4) for i in range(3)]
        for frame in frames:
            frame.prediction = picture
        keep("clip", Sketch(picture // 8, frames))
        args.output.mkdir(parents=True, exist_ok=True)
        made = record(row, int(seed[4:]), 40, str(args.data[0]))
        (args.output / "results.json").write_text(json.dumps(made))
