"""What a live stream costs beside its model, and whether it lasts.

    python -m sonomime.benchmarks.live latency --json latency.json
    python -m sonomime.benchmarks.live soak --minutes 60 --json soak.json

Both run `sonomime stream` on the CPU as a process of its own, whose driving frames this process
sends by OpenIGTLink, and whose frames it gets back by OpenIGTLink, all on this machine.

`latency` sends a frame when the one before has come back, 25 a second at most. It takes the time
from before a frame is packed until its synthesized frame is unpacked, with two more clients
connected; and what of it is beyond the time that the stream's model took for that frame. In turns
with that, it takes the time of the model alone in this process, with the same frames at the same
pace, while the stream stands still; and the first with one more client, which reads a frame a
second. The stream's own account ends when a frame is marked, and has steps of 0.1 ms. Then it looks
at what a client costs that stops without closing its connection.

`soak` switches the source every ten seconds, by STRING messages and by the standard input. Clients
come, read slowly, stand still and vanish; the stream is paused, and driving frames stay away for
three seconds. A client that is always connected must see each change of the picture's state that
follows from this; else the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain, count, cycle
from pathlib import Path
from subprocess import TimeoutExpired
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..runtime.animator import Animator
from ..runtime.backends import resolve_threads
from ..runtime.landmarks import Picture, align_pair
from ..runtime.support.atomic_files import atomic_write_text
from ..runtime.support.errors import BackendError
from ..runtime.support.process import terminable
from .live_soak import (
    LEVELS,
    PATIENCE,
    PERIOD,
    Camera,
    Guests,
    Seen,
    StreamProcess,
    Turns,
    Viewer,
    sampled,
    summary,
)
from .measure import environment, table

SKIPPED = 10  # frames at the beginning of each block, which are not timed
LIMITS = {"p50": 1.0, "p99": 3.0}  # milliseconds beyond the time of its model
CPU_SECONDS = 10.0  # over which CPU time is taken
QUANTILES = {"p50": 50, "p95": 95, "p99": 99}


class Rig(NamedTuple):
    """A stream that moves, what drives it, who watches, and others who do."""

    stream: StreamProcess
    camera: Camera
    viewer: Viewer
    guests: Guests


@contextmanager
def set_up(threads: int, seconds: float) -> Iterator[Rig]:
    """A stream for at most so many seconds."""
    with (
        TemporaryDirectory() as folder,
        Camera() as camera,
        StreamProcess(Path(folder), camera.port, threads, seconds) as stream,
        Viewer(stream.wait_for_port()) as viewer,
        Guests(stream.port) as guests,
    ):
        with camera.running():
            viewer.wait_until_moving()
        yield Rig(stream, camera, viewer, guests)


def paced(number: int) -> Iterator[int]:
    """Numbers, 25 a second at most; the first SKIPPED are negative."""
    for i in range(-SKIPPED, number):
        due = time.perf_counter() + PERIOD
        yield i
        time.sleep(max(0.0, due - time.perf_counter()))


def time_stream(rig: Rig, number: int) -> list[tuple[float, float, float]]:
    """Of so many frames the seconds from in to out, those by the stream's own account, and those
    of its model; BackendError if one does not come back."""

    def answers(sent: float, seen: Seen) -> bool:
        # By when its driving frame came, which is rounded to 1e-4.
        return seen.latency is not None and seen.made - seen.latency > sent - 1e-4

    found = []
    for i in paced(number):
        last, clock, begin = rig.viewer.number, time.time(), time.perf_counter()
        rig.camera.send_next()
        seen = rig.viewer.wait(partial(answers, clock), last, PATIENCE)
        if seen is None or seen.latency is None or seen.model is None:
            raise BackendError(f"a frame did not come back within {PATIENCE:g} s")
        if i >= 0:
            found.append((seen.at - begin, seen.latency, seen.model))
    return found


def time_model(stream: StreamProcess, animator: Animator, drive: Any, number: int) -> list[float]:
    """Seconds of so many frames of the model alone, while the stream stands still. drive: gives
    driving frames and their times."""
    taken = []
    stream.process.send_signal(signal.SIGSTOP)
    try:
        for i in paced(number):
            image, seconds = next(drive)
            begin = time.perf_counter()
            animator.animate(image, seconds, size="model")
            if i >= 0:
                taken.append(time.perf_counter() - begin)
    finally:
        stream.process.send_signal(signal.SIGCONT)
    return taken


def cpu_of(stream: StreamProcess) -> float:
    """CPU seconds that it takes in a second."""
    begin, before = time.perf_counter(), stream.usage().cpu
    time.sleep(CPU_SECONDS)
    return (stream.usage().cpu - before) / (time.perf_counter() - begin)


def cpu_of_vanished(rig: Rig) -> dict[str, dict[str, float]]:
    """The stream's CPU seconds a second before a client has stopped, while it is there, and after;
    while driving frames come, and while the stream is paused, where less hides what it costs."""
    found: dict[str, dict[str, float]] = {}
    with rig.camera.running():
        for way, order in (("moving", "resume"), ("paused", "pause")):
            rig.viewer.order(order)
            time.sleep(1.0)
            found[way] = {"before": cpu_of(rig.stream)}
            with Guests(rig.stream.port) as guests:
                guests.come(stands_still=True)
                found[way]["with"] = cpu_of(rig.stream)
            found[way]["after"] = cpu_of(rig.stream)
        rig.viewer.order("resume")
        rig.viewer.wait_until_moving()
    return found


def measure_latency(frames: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time the stream and its model in turns; the report is plain data."""
    machine, number = environment(), -(-frames // rounds)
    blocks: dict[str, list[list[Any]]] = {"model": [], "stream": [], "slow": []}
    seconds = 10 * frames + 600  # of a stream that nobody ends
    with (
        set_up(threads, seconds) as made,
        Animator.open(backend="cpu", threads=threads) as animator,
    ):
        stream, camera = made.stream, made.camera
        source, reference = Picture(camera.source), Picture(camera.images[0])
        animator.set_source(source.image)
        animator.set_reference(reference.image)
        align_pair(animator, "auto", source, reference)
        drive = zip(cycle(camera.images), count(0.0, PERIOD))
        for _ in range(2):  # three clients with the viewer
            made.guests.come()
        usage = {"before": stream.usage()}
        for i in range(rounds):
            turns = ["model", "stream", "slow"]
            for turn in turns[i % 3 :] + turns[: i % 3]:
                if turn == "model":
                    blocks[turn].append(time_model(stream, animator, drive, number))
                elif turn == "stream":
                    blocks[turn].append(time_stream(made, number))
                else:
                    with Guests(stream.port) as slow:
                        slow.come(pause=1.0)
                        blocks[turn].append(time_stream(made, number))
        cpu = cpu_of_vanished(made)
        usage["after"] = stream.usage()
    return {
        "frames": frames, "rounds": rounds, "clients": 3, "threads": threads,
        "environment": machine, "load_average_after": os.getloadavg(),
        "milliseconds": figures(blocks), "limits": LIMITS,
        "usage": {f"CPU s a second, {way}": taken for way, taken in cpu.items()}
        | {name: {n: getattr(used, name) for n, used in usage.items()} for name in LEVELS},
        "samples_s": blocks,
    }  # fmt: skip


def figures(blocks: dict[str, list[list[Any]]]) -> dict[str, dict[str, Any]]:
    """Quantiles of what was timed, and their differences, by the names in the printed table."""
    model = quantiles(list(chain(*blocks["model"])))
    found: dict[str, dict[str, Any]] = {"model alone": model}
    whole = {}
    for name, words in (("stream", "3 clients"), ("slow", "and a slow one")):
        taken, account, own = np.array(list(chain(*blocks[name]))).T
        whole[name] = quantiles(taken)
        each = (np.array(block).T for block in blocks[name])
        beyond = [1e3 * float(np.median(block[0] - block[2])) for block in each]
        found |= {
            f"{words}: in to out": whole[name],
            f"{words}: by its own account": quantiles(account),
            f"{words}: its model": quantiles(own),
            f"{words}: beyond its model": quantiles(taken - own) | {"p50_of_rounds": beyond},
            f"{words}: beyond the model alone": less(whole[name], model),
        }
    return found | {"by the slow one": less(whole["slow"], whole["stream"])}


def quantiles(seconds: ArrayLike) -> dict[str, Any]:
    """Milliseconds, and how many frames."""
    ms = 1e3 * np.asarray(seconds)
    found = np.percentile(ms, list(QUANTILES.values())).tolist()
    return {"frames": len(ms), **dict(zip(QUANTILES, found, strict=True))}


def less(mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Differences of quantiles; not the quantiles of differences, since frames are others."""
    return {name: mine[name] - other[name] for name in QUANTILES}


def rows(title: str, values: dict[str, Any], *columns: str) -> Iterator[str]:
    return table(title, list(values.items()), {name: name for name in columns})


def latency_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person."""
    machine, found = report["environment"], report["milliseconds"]
    before, after = machine["load_average"][0], report["load_average_after"][0]
    yield f"{machine['cpu']}, {machine['cores_available']} cores, {report['threads']} threads"
    yield f"load average {before:.2f} before, {after:.2f} after"
    yield from rows("ms", found, "frames", *QUANTILES)
    beyond = found["3 clients: beyond its model"]
    low, *_, high = sorted(beyond["p50_of_rounds"])
    kept = all(beyond[name] <= limit for name, limit in LIMITS.items())
    yield f"beyond its model: p50 {low:.3f} to {high:.3f} ms by round; within {LIMITS}: {kept}"
    yield from rows("a client that stops", report["usage"], "before", "with", "after")


def soak(minutes: float, threads: int) -> dict[str, Any]:
    """Lead a stream through changes for so long; the report is plain data."""
    machine, seconds = environment(), 60 * minutes
    with set_up(threads, seconds + 300) as made:
        stream, camera, viewer, guests = made
        turns = Turns(*made)
        with camera.running(), sampled(stream) as samples:
            turns.run(time.monotonic() + seconds)
            guests.leave(0)
            time.sleep(2.5)  # it says once more what it dropped
        orders = {
            "given": turns.orders,
            "answered": viewer.answers["ok"] + stream.said().count("ok"),
        }
        accounts, clients = stream.accounts(), camera.clients
        viewer.order("stop")
        with suppress(TimeoutExpired):
            stream.process.wait(PATIENCE)
        time.sleep(0.5)  # for what came last
        last, said = stream.accounts()[-1], stream.said()[-20:]
    shown = last["frames"] + 1  # with the last one, which is black and in no count
    cut_off, dropped = shown - viewer.number - 1, accounts[-1]["dropped"]
    most = {name: max(each["dropped"][name] for each in accounts) for name in dropped}
    by_camera = sum(client.sending.dropped.total() for client in clients)
    to_clients = sum(number for name, number in dropped.items() if name != "driving")
    return {
        "minutes": minutes, "threads": threads, "environment": machine,
        "exit_code": stream.process.returncode, "said": said,  # -9: it did not obey `stop`
        "changes": turns.changes, "orders": orders, "states": dict(viewer.states),
        "frames": {"shown": shown, "received": viewer.frames, "before": viewer.first}
        | {"missing": viewer.missing, "cut_off": cut_off, "back": viewer.back},
        "driving": {"sent": camera.sent, "moved": viewer.moved, "dropped_by_camera": by_camera},
        "dropped": dropped, "most": most, "latency_ms": accounts[-1]["latency_ms"],
        "adds_up": viewer.back == 0 and 0 <= cut_off <= 2 and viewer.missing <= to_clients,
        "usage": summary(samples), "samples": samples,
    }  # fmt: skip


def soak_lines(report: dict[str, Any]) -> Iterator[str]:
    """The report for a person."""
    usage = report["usage"]
    yield from rows("usage", usage["levels"], "first", "last", "max")
    slope, since = usage["mb_per_hour"], usage["since_s"]
    yield f"rss grows by {slope:.2f} MB an hour, by its samples from second {since:.0f} on"
    yield from rows("changes", report["changes"], "expected", "seen")
    yield "orders: {given} given, {answered} answered".format(**report["orders"])
    yield f"states that the viewer saw begin: {report['states']}"
    yield (
        "frames: {shown} shown = {received} received + {before} before it was there + {missing} "
        "missing + {cut_off} at the end; {back} that did not rise".format(**report["frames"])
    )
    yield (
        "driving frames: {sent} sent, {dropped_by_camera} dropped before the stream; {moved} "
        "received frames were moved by one".format(**report["driving"])
    )
    yield f"dropped in the stream: {report['dropped']}; while guests were there: {report['most']}"
    yield f"adds up: {report['adds_up']}; the stream's exit code: {report['exit_code']}"
    if report["exit_code"]:
        yield from report["said"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    latency, lasting = verbs.add_parser("latency"), verbs.add_parser("soak")
    latency.add_argument("--frames", type=int, default=1000, help="of each kind (default: 1000)")
    latency.add_argument("--rounds", type=int, default=10, help="blocks of each kind (default: 10)")
    lasting.add_argument("--minutes", type=float, default=60.0, help="at least 1 (default: 60)")
    for verb in (latency, lasting):
        verb.add_argument("--threads", type=int, help="of the model (default: physical cores)")
        verb.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    args = parser.parse_args()
    if args.verb == "soak" and not args.minutes >= 1:
        parser.error("give at least --minutes 1")
    if args.verb == "latency" and not 1 <= args.rounds <= args.frames:
        parser.error("give a frame for each round at least")
    threads = resolve_threads(args.threads)
    with terminable():
        if args.verb == "latency":
            report = measure_latency(args.frames, args.rounds, threads)
            lines = latency_lines(report)
        else:
            report = soak(args.minutes, threads)
            lines = soak_lines(report)
    if args.json is not None:
        atomic_write_text(args.json, json.dumps(report) + "\n")
    print(*lines, sep="\n")
    changes = report.get("changes", {}).values()
    return int(report.get("exit_code", 0) != 0 or any(n["seen"] < n["expected"] for n in changes))


if __name__ == "__main__":
    sys.exit(main())
