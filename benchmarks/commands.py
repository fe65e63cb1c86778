"""The command line of this room: `bench`. Only argparse is imported until the verb runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..runtime.support.verbs import Verbs, add_verb

BENCH = """time a frame, stage by stage

Time a frame, stage by stage: one frame after the other, as fast as possible. The start of a new
process is timed apart from warm frames. On a GPU stages are timed by CUDA events, and clocks, power
and throttling are recorded.

example:
  sonomime bench --frames 300 --json latency.json
  sonomime bench --bundle my-bundle/ --torch runs/first/checkpoint.pt
  sonomime bench --backend tensorrt --json latency-gpu.json"""


def add_bench(sub: Verbs) -> None:
    """Register `sonomime bench`."""
    add = add_verb(sub, "bench", BENCH, run_bench).add_argument
    bundle = "folder of the model (default: the one included)"
    add("--bundle", type=Path, metavar="B", help=bundle)
    backend = (
        "auto (default: the fastest available), cpu, ort-cuda, tensorrt, rtx, or torch: the model "
        "in eager torch"
    )
    add("--backend", default="auto", metavar="NAME", help=backend)
    device = "number of the GPU, from 0 (default: 0, if there is a GPU)"
    add("--device", type=int, metavar="N", help=device)
    frames = "frames that are timed (default: 200)"
    add("--frames", type=int, default=200, metavar="N", help=frames)
    warmup = "frames before these, which are not timed (default: 20)"
    add("--warmup", type=int, default=20, metavar="N", help=warmup)
    add("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)")
    cold = "new processes, each timed to its first frame (default: 3)"
    add("--cold", type=int, default=3, metavar="N", help=cold)
    torch = (
        "compare with eager torch running this checkpoint, in interleaved blocks; with --backend "
        "torch, the weights to run"
    )
    add("--torch", type=Path, metavar="CHECKPOINT", help=torch)
    figures = "write all figures to FILE, those of each frame too"
    add("--json", type=Path, metavar="FILE", help=figures)


def run_bench(args: argparse.Namespace) -> int:
    """Run `sonomime bench`."""
    from ..runtime.support.atomic_files import atomic_write_text
    from .latency import measure_latency, report_lines

    report = measure_latency(
        args.bundle, args.backend, args.threads, args.frames, args.warmup, args.cold, args.torch,
        args.device,
    )  # fmt: skip
    if args.json is not None:
        atomic_write_text(args.json, json.dumps(report, indent=1) + "\n")
    for line in report_lines(report):
        print(line)
    return 0
