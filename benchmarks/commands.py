"""The command line of this room: `bench`. Only argparse is imported until the verb runs."""

from __future__ import annotations

import argparse
from pathlib import Path

EXAMPLE = """example:
  sonomime bench --frames 300 --json latency.json
  sonomime bench --bundle my-bundle/ --torch runs/first/checkpoint.pt
  sonomime bench --backend tensorrt --json latency-gpu.json
"""


def add_bench(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `sonomime bench`."""
    parser = sub.add_parser(
        "bench",
        help="time a frame, stage by stage",
        description="Time a frame, stage by stage: one frame after the other, as fast as possible. "
        "The start of a new process is timed apart from warm frames. On a GPU stages are timed by "
        "CUDA events, and clocks, power and throttling are recorded.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="B", help="folder of the model (default: the one included)"
    )
    parser.add_argument(
        "--backend", default="auto", metavar="NAME",
        help="auto (default: the fastest available), cpu, ort-cuda, tensorrt, rtx, or torch: the "
        "model in eager torch",
    )  # fmt: skip
    parser.add_argument(
        "--device", type=int, metavar="N",
        help="number of the GPU, from 0 (default: 0, if there is a GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=int, default=200, metavar="N", help="frames that are timed (default: 200)"
    )
    parser.add_argument(
        "--warmup", type=int, default=20, metavar="N",
        help="frames before these, which are not timed (default: 20)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: physical cores)"
    )
    parser.add_argument(
        "--cold", type=int, default=3, metavar="N",
        help="new processes, each timed to its first frame (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--torch", type=Path, metavar="CHECKPOINT",
        help="compare with eager torch running this checkpoint, in interleaved blocks; with "
        "--backend torch, the weights to run",
    )  # fmt: skip
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help="write all figures to FILE, those of each frame too",
    )
    parser.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> int:
    """Run `sonomime bench`."""
    import json

    from ..runtime.support.atomic_files import atomic_write_text
    from .latency import Plan, measure_latency, report_lines

    plan = Plan(
        args.bundle, args.backend, args.threads, args.frames, args.warmup, args.cold, args.torch,
        args.device,
    )  # fmt: skip
    report = measure_latency(plan)
    if args.json is not None:
        atomic_write_text(args.json, json.dumps(report, indent=1) + "\n")
    for line in report_lines(report):
        print(line)
    return 0
