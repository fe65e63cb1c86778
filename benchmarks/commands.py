"""The command line of this room: `bench`. Only argparse is imported until the verb runs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ..runtime.support.atomic_files import atomic_path
from ..runtime.support.errors import ConfigError, output_errors
from ..runtime.support.verbs import Verbs, add_verb

BENCH = """time frames: one after the other, at fixed rates, from file to file

Time frames: one after the other with their stages; due at fixed rates, with what is dropped; in
several streams; from file to file. A new process is timed apart until its first frame. The report
has memory, agreement with ONNX Runtime on the CPU, and a warning where the machine was not steady.
On a GPU stages are timed by CUDA events, and clocks, power and throttling are recorded.

examples:
  sonomime bench --frames 300 --json latency.json
  sonomime bench --rate 25 --rate 30 --rate 60 --plot latency.png
  sonomime bench --backend cpu --threads 1 --streams 2 --rate 25
  sonomime bench --backend tensorrt --markdown latency.md
  sonomime bench compare cpu torch@checkpoint.pt fomm --frames 50
  sonomime bench compare --help"""
COMPARE = """run candidates in turns and say how many times as long they take

Run candidates in turns, block by block in one process, so that other work slows all of them alike,
and say how many times as long as the first each of the others takes, with a 95 % interval.

candidates:
  cpu, openvino, ...     a backend, with the bundle of --bundle
  BACKEND:PRECISION      in another precision
  BACKEND@BUNDLE         with the bundle in that folder
  torch@CHECKPOINT       the model in a plain loop in eager torch, on the CPU
  torch                  the same untrained, which changes no time
  fomm                   FOMM's own loop in eager torch, untrained: the source is
                         encoded again for every frame
examples:
  sonomime bench compare cpu torch@runs/first/checkpoint.pt --bundle my-bundle
  sonomime bench compare cpu cpu@my-bundle --blocks 20 --frames 400 --json ratio.json
  sonomime bench compare cpu fomm --frames 20"""
FRAMES, WARMUP, COLD = 200, 20, 3
COMPARED_FRAMES, BLOCKS = 100, 10
_ONLY_BENCH = ("backend", "precision", "warmup", "cold", "rate", "streams", "no_offline")


def add_bench(sub: Verbs) -> None:
    """Register `sonomime bench` and `sonomime bench compare`."""
    bench = add_verb(sub, "bench", BENCH, run_bench)
    _add_common(bench, f"frames of each kind that are timed (default: {FRAMES})", {})
    add = bench.add_argument
    backend = "auto (default: the fastest available), or the name of one, such as cpu or tensorrt"
    add("--backend", metavar="NAME", help=backend)
    precision = "what to compute in (default: what the bundle holds)"
    add("--precision", metavar="P", help=precision)
    warmup = f"frames before these, which are not timed (default: {WARMUP})"
    add("--warmup", type=int, metavar="N", help=warmup)
    cold = f"new processes, each timed to its first frame (default: {COLD})"
    add("--cold", type=int, metavar="N", help=cold)
    rate = (
        "also an open loop: frames are due so often, latency counts from when they were due, and "
        "the newest wins; may be given more than once"
    )
    add("--rate", type=float, action="append", metavar="HZ", help=rate)
    streams = (
        "also so many streams at the same time, each with its own model, source and clip; they "
        "share out the physical cores, or have --threads each"
    )
    add("--streams", type=int, metavar="N", help=streams)
    offline = "do not animate a clip from file to file"
    add("--no-offline", action="store_true", default=None, help=offline)
    kinds: Any = bench.add_subparsers(metavar="compare", dest="bench_verb", help="see its --help")
    compare = add_verb(kinds, "compare", COMPARE, run_compare)
    candidate = "two candidates or more; all are compared with the first"
    compare.add_argument("candidates", nargs="+", metavar="CANDIDATE", help=candidate)
    # Left out of its own values, so that those given before the word `compare` count.
    absent = {"default": argparse.SUPPRESS}
    frames = f"frames of each candidate, shared out among its blocks (default: {COMPARED_FRAMES})"
    _add_common(compare, frames, absent)
    blocks = f"turns (default: {BLOCKS}); an interval needs 6"
    compare.add_argument("--blocks", type=int, default=BLOCKS, metavar="N", help=blocks)


def _add_common(parser: argparse.ArgumentParser, frames: str, more: dict[str, Any]) -> None:
    """The options that both have."""
    add = parser.add_argument
    bundle = "folder of the model (default: the one included)"
    add("--bundle", type=Path, metavar="B", help=bundle, **more)
    device = "number of the GPU, from 0 (default: 0, if there is a GPU)"
    add("--device", type=int, metavar="N", help=device, **more)
    add("--threads", type=int, metavar="N", help="CPU threads (default: physical cores)", **more)
    add("--frames", type=int, metavar="N", help=frames, **more)
    figures = "write all figures to FILE, those of each frame too"
    add("--json", type=Path, metavar="FILE", help=figures, **more)
    add("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown", **more)
    plot = "draw how many frames take how long, on logarithmic axes"
    add("--plot", type=Path, metavar="FILE.png", help=plot, **more)


def run_bench(args: argparse.Namespace) -> int:
    """Run `sonomime bench`."""
    from .latency import measure_latency
    from .report import latency_parts

    with _outputs(args) as files:
        report = measure_latency(
            args.bundle,
            "auto" if args.backend is None else args.backend,
            args.threads,
            _or(args.frames, FRAMES),
            _or(args.warmup, WARMUP),
            _or(args.cold, COLD),
            args.device,
            args.precision,
            args.rate or (),
            _or(args.streams, 1),
            not args.no_offline,
        )
        _show(report, latency_parts(report), "Latency", files)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    """Run `sonomime bench compare`."""
    from .compare import compare
    from .report import compare_parts

    for name in _ONLY_BENCH:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            hint = "leave it out; a candidate names its own backend and precision, as cpu:fp32"
            raise ConfigError(f"{option} has no effect on compare", hint)
    with _outputs(args) as files:
        frames = _or(args.frames, COMPARED_FRAMES)
        report = compare(
            args.candidates, args.bundle, args.blocks, frames, args.threads, args.device
        )
        _show(report, compare_parts(report), "Comparison", files)
    return 0


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


@contextmanager
def _outputs(args: argparse.Namespace) -> Iterator[dict[str, Path]]:
    """Where to write what was asked for, by option. They are opened before anything is measured, so
    that a place that cannot be written costs no time."""
    wanted = {"json": args.json, "markdown": args.markdown, "plot": args.plot}
    given = {name: path for name, path in wanted.items() if path is not None}
    if Path("-") in given.values():
        raise ConfigError("cannot write to standard output (-)", "give the name of a file")
    if args.plot is not None and args.plot.suffix.lower() != ".png":
        raise ConfigError(f"the plot cannot be {args.plot}", "give --plot NAME.png")
    if len({path.resolve() for path in given.values()}) < len(given):
        options = " and ".join(f"--{name}" for name in given)
        raise ConfigError(f"{options} name the same file", "give each a name of its own")
    with ExitStack() as stack:
        yield {name: stack.enter_context(atomic_path(path)) for name, path in given.items()}


def _show(report: dict[str, Any], parts: Iterator[Any], title: str, files: dict[str, Path]) -> None:
    """Print a report and write the files that were asked for."""
    from ..runtime.media.frames import png_bytes
    from ..runtime.support.printable import printable
    from .plot import draw, latencies
    from .report import as_markdown, as_text

    shown = list(parts)
    contents = {
        "json": lambda: (json.dumps(report, indent=1, allow_nan=False) + "\n").encode(),
        "markdown": lambda: (as_markdown(title, shown) + "\n").encode(),
        "plot": lambda: png_bytes(draw(latencies(report), f"{title}: {report['bundle']['name']}")),
    }
    for name, path in files.items():
        with output_errors(path):
            path.write_bytes(contents[name]())
    for line in as_text(shown):
        print(printable(line))
