"""Check and time everything on a machine with an NVIDIA GPU, by one command.

    python benchmarks/gpu_check.py -o gpu.json            from a checkout, nothing installed
    python -m sonomime.benchmarks.gpu_check -o gpu.json   where sonomime is installed

It runs the tests marked gpu, then times every backend, the kernels, models in torch and training
steps, as far as this machine has what they need. Every part runs in a process of its own; this one
never touches the GPU. The report is written again after every row, so that a run that is cut short
still leaves one. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

BACKENDS = ("ort-cuda", "tensorrt", "rtx", "ort-cpu")
EXIT_NO_GPU, EXIT_DIFFERS, EXIT_CUT_SHORT = 4, 5, 8
# A row may take half of its part's time, but at least this much: some are compiled for long.
ROW_SECONDS = 120.0
COLUMNS = {
    "p50 ms": "milliseconds.frame.p50", "p99": "milliseconds.frame.p99", "cold": "cold_ms",
    "levels": "levels_apart", "dB": "psnr_db", "us": "microseconds", "torch": "torch_microseconds",
    "memory": "microseconds_from_memory", "share": "bandwidth_share", "step ms": "ms.p50",
    "batch": "batch", "MB": "memory_mb", "device": "device",
}  # fmt: skip
"""What tables show, by heading: the keys of the value in a row."""
_USED = (
    "torch", "pytest", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "cuda.bindings", "cv2",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Check, write the report, print the tables. Returns the exit code: 5 when something failed or
    differs from what it should be, else 8 when time ran out, else 4 without a GPU."""
    from ..runtime.support.errors import SonomimeError
    from ..runtime.support.process import Terminated, terminable

    args = parser().parse_args(argv)
    try:
        with terminable(), tempfile.TemporaryDirectory() as folder:
            return Check(args, folder).run()
    except SonomimeError as error:
        _complain(error.message, error.hint)
        return error.exit_code
    except Terminated as error:
        return error.exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    add = made.add_argument
    add("-o", "--output", type=Path, metavar="FILE.json", help="write everything")
    add("--cpu-only", action="store_true", help="only what needs no GPU")
    models = "presets to run and train in torch, untrained (ours-ptg,lite); empty: none"
    add("--models", default="ours-ptg,lite", metavar="A,B", help=models)
    add("--checkpoint", metavar="FILE", help="run this trained model in torch too")
    bundle = "time the backends on this bundle too; can be given more than once"
    add("--bundle", action="append", default=[], metavar="B", help=bundle)
    add("--frames", type=int, default=300, metavar="N", help="frames timed (300)")
    add("--minutes", type=float, default=60.0, metavar="M", help="limits the total time (60)")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    return made


def command(spec: dict[str, Any]) -> list[str]:
    """The command of a process that works on a part."""
    return [sys.executable, "-P", "-m", "sonomime.benchmarks.gpu.parts", json.dumps(spec)]


@dataclass
class Part:
    """What processes are asked for, and the entry of the report that holds their answers."""

    title: str
    kind: str
    spec: dict[str, Any] = field(default_factory=dict)
    absent: InitVar[str] = ""
    entry: dict[str, Any] = field(default_factory=lambda: {"rows": []})

    def __post_init__(self, absent: str) -> None:
        self.entry |= {"absent": absent} if absent else {}


class Check:
    """The parts, one after the other, and their report."""

    def __init__(self, args: argparse.Namespace, folder: str) -> None:
        """`folder`: for what is compiled."""
        from ..runtime.fastest import installed
        from .measure import environment
        from .nvidia_smi import watch

        self.args, self.folder, self.began = args, folder, perf_counter()
        self.parts = [Part("machine", "machine")]
        with watch() as state:
            pass
        self.report = {
            "asked": vars(args) | {"output": str(args.output)},
            "environment": environment(),
            "absent": [module for module in _USED if not installed(module)],
            "nvidia_smi": state,
            "machine": self.parts[0].entry,
        }

    def run(self) -> int:
        """Run everything. Returns the exit code."""
        (machine,) = self.parts
        print("absent: " + (", ".join(self.report["absent"]) or "nothing"))
        if not self.args.cpu_only:
            self._run([machine], 0.5)
        why = "not asked for" if self.args.cpu_only else "not known"
        gpu = machine.entry.setdefault("gpu", {"absent": why})
        print(gpu.get("name") or f"no GPU: {gpu['absent']}", flush=True)
        parts = list(self._planned(gpu))
        self.parts += parts
        self.report["parts"] = {part.title: part.entry for part in parts}
        self._run(parts, 0.5)
        # If time remains: what was skipped, then what torch compiles.
        self._run([part for part in parts if "left_out" in part.entry], 1.0)
        if "name" in gpu and not self.args.no_compile:
            ways = [part for part in parts if part.kind == "ways"]
            for part in ways:
                part.spec["compiled"] = True
            self._run(ways, 1.0)
        self._save()
        return self._verdict(gpu)

    def _planned(self, gpu: dict[str, Any]) -> Iterator[Part]:
        """The most important ones first."""
        args, frames, there = self.args, {"frames": self.args.frames}, "name" in gpu
        no_gpu = "" if there else "there is no GPU"
        no_torch = no_gpu or ("" if gpu["in_torch"] else "torch is not installed, or no GPU")
        presets = [name for name in args.models.split(",") if name]
        yield Part("tests marked gpu", "tests", {}, no_gpu)
        for bundle in (None, *args.bundle):
            names = ("ort-cpu",) if args.cpu_only else BACKENDS
            spec = frames | {"bundle": bundle, "names": names, "gpu": there}
            yield Part(f"backends, {bundle or 'default bundle'}", "backends", spec)
        yield Part("kernels", "kernels", {}, no_torch)
        for model in filter(None, (args.checkpoint, *presets)):
            spec = frames | {"model": model, "compiled": False}
            yield Part(f"{model} in torch", "ways", spec, no_torch)
        if presets:
            yield Part("training steps", "training", {"models": presets}, no_torch)

    def _run(self, parts: Sequence[Part], share: float) -> None:
        """Run the rest of each part within its share of the time that is left, and print it."""
        for part in parts:
            until = perf_counter() + share * (self.began + 60 * self.args.minutes - perf_counter())
            part.entry.pop("left_out", None)
            while "absent" not in part.entry and self._process(part, until):
                pass
            print("\n" + "\n".join(lines(part)), flush=True)

    def _process(self, part: Part, until: float) -> bool:
        """One process. Returns whether another one should go on with the rest: a crash costs the
        row that it happened in."""
        from .gpu.child import listen

        entry, rows = part.entry, part.entry["rows"]
        known = len(rows)

        def limit() -> float:
            left = until - perf_counter()
            return min(left, max(left / 2, ROW_SECONDS))

        def heard(message: dict[str, Any]) -> None:
            if "name" not in message:
                entry.update(message)
            elif rows and rows[-1]["name"] == message["name"]:
                rows[-1] = message
            else:
                rows.append(message)
            self._save()

        if limit() <= 0:
            entry["left_out"] = ("the rest: " if rows else "") + "out of time"
            self._save()
            return False
        done = [row["name"] for row in rows]
        spec = {"part": part.kind, "folder": self.folder, "done": done} | part.spec
        ended = listen(command(spec), limit, heard)
        begun = bool(rows) and rows[-1].pop("begun", False)
        silent = entry.keys() == {"rows"} and not rows
        if begun or silent or (ended and len(rows) == known):
            why = {"failed": entry.pop("failed")} if "failed" in entry else ended
            (rows[-1] if begun else entry).update(why or {"failed": "it ended without a result"})
        self._save()
        return bool(ended) and len(rows) > known

    def _verdict(self, gpu: dict[str, Any]) -> int:
        if self.args.output is not None:
            print(self.args.output)
        found = [(row["name"], row) for part in self.parts for row in part.entry["rows"]]
        found += [(f"{part.title} ({trouble(part.entry)})", part.entry) for part in self.parts]
        wrong = [name for name, row in found if "failed" in row or not row.get("agrees", True)]
        cut = [name for name, row in found if "stopped" in row or "left_out" in row]
        if wrong:
            _complain(f"failed, or differs from what it should be: {'; '.join(wrong)}")
        if cut:
            _complain(
                f"stopped or left out, for lack of time: {'; '.join(cut)}",
                "give it more --minutes, unless what was stopped hangs",
            )
        if wrong or cut:
            return EXIT_DIFFERS if wrong else EXIT_CUT_SHORT
        if "name" in gpu or self.args.cpu_only:
            return 0
        unchecked = [part.title for part in self.parts if "absent" in part.entry]
        _complain(
            f"there is no GPU ({gpu['absent']}), so these were not checked: "
            f"{'; '.join(unchecked)}; and no backend but ort-cpu",
            "check nvidia-smi, and that torch is built for CUDA; --cpu-only asks for this",
        )
        return EXIT_NO_GPU

    def _save(self) -> None:
        if self.args.output is not None:
            from ..runtime.support.atomic_files import atomic_write_text

            self.report["seconds"] = perf_counter() - self.began
            text = json.dumps(self.report, indent=1, allow_nan=False)
            atomic_write_text(self.args.output, text + "\n")


def lines(part: Part) -> Iterator[str]:
    """What a part has found so far, as text."""
    from .measure import table

    entry, rows = part.entry, part.entry["rows"]
    yield part.title + (f": {why}" if (why := trouble(entry)) else "")
    if part.kind == "tests" and rows:
        passed = [row for row in rows if row.keys() == {"name", "seconds"}]
        yield f"{len(passed)} of {len(rows)} passed"
        rows = [row for row in rows if row not in passed]
    shown = [(row["name"], trouble(row) or row) for row in rows]
    for line, row in zip(table(part.kind, shown, COLUMNS), [{}, *rows], strict=False):
        throttled = row.get("gpu", {}).get("throttled", False)
        differs = "" if row.get("agrees", True) else "  DIFFERS"
        yield line + differs + ("  THROTTLED" if throttled else "")


def trouble(row: dict[str, Any]) -> str:
    """Why a row, or a part, is incomplete; empty when it is complete."""
    words = ("absent", "skipped", "failed", "stopped", "left_out")
    return "; ".join(f"{word.replace('_', ' ')}: {row[word]}" for word in words if word in row)


def _complain(what: str, cure: str = "") -> None:
    print(f"error: {what}" + (f"\nhint: {cure}" if cure else ""), file=sys.stderr)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        # This checkout is the package, whatever its folder is called; here and in the parts.
        Path(home, "sonomime").symlink_to(Path(__file__).resolve().parents[1])
        sys.path[0] = home  # not this file's own folder, whose modules have bare names there
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (home, os.getenv("PYTHONPATH"))))
        from sonomime.benchmarks.gpu_check import main as run

        sys.exit(run())
