"""The command line of training. Imports argparse alone until a verb runs."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.support.verbs import Verbs, add_verb
from .annotations.commands import add_annotations
from .evaluation.command import add_evaluate
from .phantom.commands import add_phantom
from .run_report.commands import add_report
from .study.commands import add_study
from .table.commands import add_table as add_table_of

if TYPE_CHECKING:
    from .config import Config
    from .data.batch import PairBatch
    from .distributed import Processes

__all__ = [
    "add_annotations",
    "add_data",
    "add_evaluate",
    "add_phantom",
    "add_report",
    "add_study",
    "add_table",
    "add_train",
]

DATA = """check clips before they are trained on

Look at data sets.

example:
  sonomime data check clips/ -o sheet.png
  sonomime data check clips/ more/ --crop auto --json"""
CHECK = """say what is wrong with clips

Read all clips of all splits and say what is wrong with them: damage, clips without motion or of one
level, labels outside of the picture, subjects in two splits, the same clip twice, and whatever the
reader assumed. It also looks for text, such as names of patients. This is a help, not a guarantee:
text can be missed, so look at the clips too. Leaves with exit code 8 if a clip is damaged or cannot
be read.

example:
  sonomime data check clips/ -o sheet.png
  sonomime data check clips/ more/ --crop auto --json"""
TRAIN = """train a model on clips

Train a preset, or a configuration of your own, on dataset folders or bare folders of videos. The
run's folder gets checkpoint.pt, report.html, log.jsonl and pictures/. Ctrl-C, SIGTERM, SIGHUP and
--max-minutes save a checkpoint and stop the run (exit code 130, 143, 129 and 0). --resume continues
from it, with the numbers of an unbroken run.

example:
  sonomime train lite --data clips/ -o runs/first
  sonomime train lite --data clips/ -o runs/first --resume
  sonomime train lite --data mine/ --from runs/first/checkpoint.pt -o runs/mine
  sonomime train ours-ptg --data a/ b/ -o runs/ptg --set train.batch_size=8 \\
      --set loss.perceptual_network=vgg19 --set loss.perceptual_weights=vgg19.pth
  sonomime train ours-ptg --data a/ -o runs/small --size 128 --width 0.25
  torchrun --nproc-per-node=4 -m sonomime.cli train ours-ptg --data a/ -o runs/ptg  # four GPUs"""


def add_data(sub: Verbs) -> None:
    """Register ``sonomime data``."""
    parser = add_verb(sub, "data", DATA, None)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", dest="data_verb", required=True)
    add = add_verb(verbs, "check", CHECK, check_command).add_argument
    text = "dataset folders, or bare folders of videos"
    add("data", nargs="+", type=Path, metavar="DIR", help=text)
    text = (
        "draw the middle frame of each clip (of the first 120), with its crop or, where it has "
        "none, the region that --crop auto would take; places that look like text are in magenta"
    )
    add("-o", "--output", type=Path, metavar="SHEET.png", help=text)
    text = "region of every clip, pixels of the original frame; auto: it is found"
    add("--crop", metavar="X,Y,W,H|auto", help=text)
    add("--json", action="store_true", help="print all of it as JSON")
    add("--strict", action="store_true", help="exit code 6 if there is any problem")


def check_command(args: argparse.Namespace) -> int:
    """Run ``sonomime data check``."""
    import json
    from dataclasses import asdict

    from ..runtime.media.contact_sheet import check_sheet
    from ..runtime.media.frames import parse_crop
    from ..runtime.support.errors import EXIT_DAMAGED, InputError
    from ..runtime.support.printable import printable
    from .data.check import MOST_SHOWN, check, lines

    check_sheet(args.output)
    done = check(args.data, parse_crop(args.crop) if args.crop else None, args.output)
    if args.json:
        problems = [problem._asdict() for problem in done.problems]
        totals = [total._asdict() for total in done.totals]
        record = asdict(done) | {"problems": problems, "totals": totals}
        print(json.dumps(record, default=str, indent=2))
    else:
        for line in lines(done):
            print(printable(line))
    if args.output is not None and len(done.clips) > MOST_SHOWN:
        _say(f"{args.output} shows the first {MOST_SHOWN} of {len(done.clips)} clips")
    if args.strict and done.problems:
        count = len(done.problems)
        raise InputError(f"there are problems: {count}", "see above; without --strict they pass")
    return 0 if all(clip.state == "ok" for clip in done.clips) else EXIT_DAMAGED


def add_train(sub: Verbs) -> None:
    """Register ``sonomime train``."""
    add = add_verb(sub, "train", TRAIN, train_command).add_argument
    text = (
        "lite (the default bundle's), monkey-net, fomm, ours-p, ours-pt, ours-ptg, onuvs, or a "
        "TOML file"
    )
    add("config", metavar="PRESET_OR_TOML", help=text)
    text = "dataset folders, or bare folders of videos"
    add("--data", nargs="+", action="extend", type=Path, required=True, metavar="DIR", help=text)
    text = "folder of the run"
    add("-o", "--output", type=Path, required=True, metavar="RUN", help=text)
    text = "continue from RUN/checkpoint.pt; repeat all other options"
    add("--resume", action="store_true", help=text)
    text = "begin with the weights of another run (fine-tuning)"
    add("--from", dest="start", type=Path, metavar="CHECKPOINT", help=text)
    text = (
        "save and stop after M minutes, even before the learning rate has fallen; "
        "to plan for less time, set train.max_steps or train.epochs"
    )
    add("--max-minutes", type=float, metavar="M", help=text)
    text = "pixels a side of the model's frames (default: the preset's, 256)"
    add("--size", type=int, metavar="N", help=text)
    text = "all widths of the networks times W, to train without a GPU: --size 128 --width 0.25"
    add("--width", type=float, metavar="W", help=text)
    text = "change a setting, e.g. train.max_steps=2000; may be given several times"
    add("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = (
        "split of clips.csv to train on (default: train); keep val to choose between runs, "
        "and test to evaluate the chosen one"
    )
    add("--split", default="train", help=text)
    text = "region of every clip, pixels of the original frame; auto: it is found"
    add("--crop", metavar="X,Y,W,H|auto", help=text)


def add_table(sub: Verbs) -> None:
    """Register ``sonomime table``."""
    add_table_of(sub, add_train)


def train_command(args: argparse.Namespace) -> int:
    """Run ``sonomime train``."""
    from ..runtime.support.errors import ConfigError
    from .distributed import joined
    from .scale import load_scaled

    config = load_scaled(args.config, args.set, args.size, args.width)
    if args.max_minutes is not None and not args.max_minutes > 0:
        fault = f"--max-minutes {args.max_minutes:g} is not positive"
        raise ConfigError(fault, "e.g. --max-minutes 60")
    with joined() as processes:
        _train(args, config, processes)
    return 0


def _train(args: argparse.Namespace, config: Config, processes: Processes) -> None:
    """Train as one of the processes."""
    import logging

    from torch import Tensor

    from ..runtime.media.frames import parse_crop
    from ..runtime.support.progress import progress
    from .checkpoint import record
    from .data.clip_frames import load_clip
    from .data.dataset import find_clips
    from .data.keypoints import count_names, described, slip_hint, slips
    from .data.pairs import PairSampler, prefetched
    from .loop import train
    from .models.families import family_of
    from .optimisation import with_steps
    from .trainer import Trainer

    say = _say if processes.first else lambda line: None
    if not processes.first:
        logging.disable(logging.WARNING)  # the first has said it
    pairs = processes.share(config.train.batch_size, config.train.accumulate)
    family, model = family_of(config.model), config.model
    crop = parse_crop(args.crop) if args.crop else None
    found = find_clips(args.data, split=args.split, crop=crop)
    for warning in found.warnings:
        say(f"warning: {warning}")
    for clip, reason in found.unsupported:
        say(f"left out: {clip.name}: {reason}")
    clips = []
    with processes.one_first():
        shown = progress(found.clips, label="reading clips") if processes.first else found.clips
        for clip in shown:
            frames = load_clip(clip, model.image_size, model.channels)
            if len(frames) > 1:
                clips.append(frames)
            else:
                say(f"left out: {clip.name}: has one distinct frame only, and a pair needs two")
    counts = count_names(clip.clip.keypoints for clip in clips)
    labelled = any(clip.visible.any() for clip in clips)
    names = {name: counts[name] for name in clips[0].clip.keypoint_names} if labelled else {}
    config = family.with_labels(config, list(names))
    names = names if family.labels(config.model) else {}
    if (taught := family.labels(config.model)) and not names:
        say(f"warning: no frame is labelled, and {taught} points of the model learn from labels")
    if never := [name for name, count in names.items() if count == 0]:  # of another split
        say(f"warning: no frame of these clips has the labels {described(never)}")
    if hint := slip_hint(slips(names)):
        say(f"warning: of the labels {described(names)}, {hint}")
    sampler = PairSampler(
        clips,
        config.data,
        config.train.seed,
        batch_size=config.train.batch_size,
        pairs=pairs,
        loss=config.loss,
    )
    if names:
        used, there = sampler.labelled
        say(f"labels: {described(names)}; {used} of {there} labelled frames are used")
    config, rule = with_steps(config, len(clips))
    data = record(args.data, [frames.clip for frames in clips])
    on_gpu = processes.device().type == "cuda"

    def draw(step: int) -> PairBatch:
        batch = sampler.batch(step)
        return batch.map(Tensor.pin_memory) if on_gpu else batch

    workers = config.data.workers or (processes.loaders() if on_gpu else 1)
    with prefetched(draw, workers) as batch:
        trainer = Trainer(config, batch, args.output, names, data, processes)
        for remark in trainer.objective.remarks:
            say(f"warning: {remark}")
        each = f" in each of {processes.count} processes" if processes.count > 1 else ""
        say(f"{rule}; {len(pairs)} pairs a step{each}")
        train(trainer, args.resume, args.max_minutes, say, args.start)


def _say(line: str) -> None:
    from ..runtime.support.printable import printable

    try:
        print(printable(line), file=sys.stderr, flush=True)
    except OSError:  # the terminal or `| tee` has gone: go on, to save
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for as long as we run
