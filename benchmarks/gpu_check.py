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
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .gpu.child import Message

BACKENDS = ("ort-cuda", "tensorrt", "rtx", "ort-cpu")
EXIT_NO_GPU, EXIT_DIFFERS, EXIT_CUT_SHORT = 4, 5, 8
# A row may take half of its part's time, but at least this much: some are compiled for long.
ROW_SECONDS = 120.0
_USED = (
    "torch", "pytest", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "cuda.bindings", "cv2",
)  # fmt: skip

_TIMES = {"p50 ms": ("9.2f", "ms.p50"), "p99": ("9.2f", "ms.p99")}
_FRAMES = {
    "p50 ms": ("9.2f", "milliseconds.frame.p50"), "p99": ("9.2f", "milliseconds.frame.p99"),
    "cold": ("9.0f", "cold_ms"), "levels": ("8.0f", "levels_apart"), "dB": ("7.1f", "psnr_db"),
}  # fmt: skip
COLUMNS: dict[str, dict[str, tuple[str, str]]] = {
    "tests": {"seconds": ("9.1f", "seconds")},
    "backends": _FRAMES | {"device": ("8", "device")},
    "ways": _FRAMES | {"MB": ("8.0f", "memory_mb")},
    "kernels": {
        "us": ("9.1f", "microseconds"), "torch": ("9.1f", "torch_microseconds"),
        "memory": ("9.1f", "microseconds_from_memory"), "share": ("7.0%", "bandwidth_share"),
    },
    "training": _TIMES | {"batch": ("7", "batch"), "MB": ("8.0f", "memory_mb")},
}  # fmt: skip
"""By part, what its table shows."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check, write the report, print the tables. Returns the exit code: 5 when something failed or
    differs from what it should be, else 8 when time ran out, else 4 without a GPU."""
    args = parser().parse_args(argv)

    from sonomime.runtime.support.errors import SonomimeError

    if args.part is not None:
        from .gpu.child import speaker
        from .gpu.parts import run_part

        # For the processes that a part starts: this checkout, installed or not.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (args.part["folder"], before)))
        run_part(args.part, speaker())
        os._exit(0)  # everything is reported; CUDA's shutdown may hang
    try:
        return Check(args).run()
    except SonomimeError as error:
        _complain(error.message, error.hint)
        return error.exit_code


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write everything")
    made.add_argument("--cpu-only", action="store_true", help="only what needs no GPU")
    made.add_argument(
        "--models", default="ours-ptg,lite", metavar="A,B",
        help="presets to run and train in torch, untrained (ours-ptg,lite); empty: none",
    )  # fmt: skip
    made.add_argument("--checkpoint", metavar="FILE", help="run this trained model in torch too")
    made.add_argument(
        "--bundle", action="append", default=[], metavar="B",
        help="time the backends on this bundle too; can be given more than once",
    )  # fmt: skip
    made.add_argument("--frames", type=int, default=300, metavar="N", help="frames timed (300)")
    made.add_argument(
        "--minutes", type=float, default=60.0, metavar="M", help="limits the total time (60)"
    )
    made.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    made.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    return made


def command(spec: dict[str, Any]) -> list[str]:
    """The command of a part: this file, as from a checkout."""
    return [sys.executable, str(Path(__file__).resolve()), "--part", json.dumps(spec)]


class Part(NamedTuple):
    """What processes are asked for, and the entry of the report that holds their answers."""

    title: str
    spec: dict[str, Any]
    entry: dict[str, Any]

    @classmethod
    def of(cls, title: str, kind: str, **spec: Any) -> Part:
        """A part that has no answers yet."""
        return cls(title, {"part": kind} | spec, {"rows": []})


class Check:
    """The parts, one after the other, and their report."""

    def __init__(self, args: argparse.Namespace) -> None:
        from .gpu.state import read_state
        from .measure import environment, installed

        self.args = args
        self.began = perf_counter()
        self.machine = Part.of("machine", "machine")
        self.parts: list[Part] = []
        self.report = {
            "asked": {name: value for name, value in vars(args).items() if name != "part"}
            | {"output": str(args.output)},
            "environment": environment(),
            "absent": [module for module in _USED if not installed(module)],
            "nvidia_smi": read_state(),
            "machine": self.machine.entry,
            "parts": {},
        }

    def run(self) -> int:
        """Run everything. Returns the exit code."""
        print("absent: " + (", ".join(self.report["absent"]) or "nothing"), flush=True)
        with tempfile.TemporaryDirectory() as folder:
            self.folder = folder
            Path(folder, "sonomime").symlink_to(Path(__file__).resolve().parents[1])
            if not self.args.cpu_only:
                self._run(self.machine, 0.5)
            why = "not asked for" if self.args.cpu_only else "not known"
            gpu = self.machine.entry.setdefault("gpu", {"absent": why})
            print(gpu.get("name") or f"no GPU: {gpu['absent']}", flush=True)
            self.parts = self._all_parts(gpu)
            self.report["parts"] = {part.title: part.entry for part in self.parts}
            for part in self.parts:
                self._show(part, 0.5)
            # If time remains: what was skipped, then what torch compiles.
            for part in self.parts:
                if "left_out" in part.entry:
                    self._show(part, 1.0)
            for part in self.parts:
                if part.spec["part"] == "ways" and not self.args.no_compile and "name" in gpu:
                    part.spec["compiled"] = True
                    self._show(part, 1.0)
        self._save()
        return self._verdict(gpu)

    def _all_parts(self, gpu: dict[str, Any]) -> list[Part]:
        """The most important ones first."""
        args, there = self.args, "name" in gpu
        names = BACKENDS if not args.cpu_only else ("ort-cpu",)
        models = [name for name in (args.checkpoint, *args.models.split(",")) if name]
        presets = [name for name in models if name != args.checkpoint]
        parts = [Part.of("tests marked gpu", "tests")]
        for bundle in (None, *args.bundle):
            what = {"bundle": bundle, "names": names, "gpu": there, "frames": args.frames}
            parts.append(Part.of(f"backends, {bundle or 'default bundle'}", "backends", **what))
        parts.append(Part.of("kernels", "kernels"))
        for model in models:
            what = {"model": model, "frames": args.frames, "compiled": False}
            parts.append(Part.of(f"{model} in torch", "ways", **what))
        parts.append(Part.of("training steps", "training", models=presets))
        for part in parts:
            if part.spec["part"] == "backends":
                continue
            if not there:
                part.entry["absent"] = "there is no GPU"
            elif part.spec["part"] != "tests" and not gpu["in_torch"]:
                part.entry["absent"] = "torch is not installed, or finds no GPU"
        return parts

    def _show(self, part: Part, share: float) -> None:
        self._run(part, share)
        print("\n" + "\n".join(lines(part)), flush=True)

    def _run(self, part: Part, share: float) -> None:
        """Run the rest of a part within its share of the time that is left."""
        until = perf_counter() + share * (self.began + 60 * self.args.minutes - perf_counter())
        part.entry.pop("left_out", None)
        while "absent" not in part.entry and self._process(part, until):
            pass

    def _process(self, part: Part, until: float) -> bool:
        """One process. Returns whether another one should go on with the rest: a crash costs the
        row that it happened in."""
        from .gpu.child import listen

        rows: list[dict[str, Any]] = part.entry["rows"]
        known, at, complete = len(rows), "", False

        def limit() -> float:
            left = until - perf_counter()
            return min(left, max(left / 2, ROW_SECONDS))

        if limit() <= 0:
            part.entry["left_out"] = ("the rest: " if rows else "") + "out of time"
            self._save()
            return False

        def heard(message: Message) -> None:
            nonlocal at, complete
            if "failed" in message and at:  # outside of what the row catches itself
                message = {"row": {"name": at} | message}
            complete = message.pop("complete", complete)
            at = message.pop("begin", "")
            if "row" in message:
                rows.append(message["row"])
            else:
                part.entry.update(message)
            self._save()

        compiled = "build_seconds" in self.report["parts"].get("kernels", {})
        library = f"{self.folder}/libsonomime_cuda.so" if compiled else None
        done = [row["name"] for row in rows]
        spec = part.spec | {"folder": self.folder, "library": library, "done": done}
        ended = listen(command(spec), limit, heard)
        if at:
            rows.append({"name": at} | (ended or {"failed": "it ended without a result"}))
        elif len(rows) == known and not complete:  # another process would not get further
            part.entry.update(ended or {"failed": part.entry.get("failed", "no result")})
            complete = True
        self._save()
        return not complete

    def _verdict(self, gpu: dict[str, Any]) -> int:
        from .gpu.rows import trouble

        if self.args.output is not None:
            print(self.args.output)
        parts = [self.machine, *self.parts]
        rows = [(row["name"], row) for part in parts for row in part.entry["rows"]]
        rows += [(f"{part.title} ({trouble(part.entry)})", part.entry) for part in parts]
        wrong = [name for name, row in rows if "failed" in row or not row.get("agrees", True)]
        cut = [name for name, row in rows if "stopped" in row or "left_out" in row]
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
    from .gpu.rows import table, trouble

    entry, rows = part.entry, part.entry["rows"]
    why = f"not checked: {entry['absent']}" if "absent" in entry else trouble(entry)
    yield part.title + (f": {why}" if why else "")
    if part.spec["part"] == "tests" and rows:
        passed = [row for row in rows if row.keys() == {"name", "seconds"}]
        yield f"{len(passed)} of {len(rows)} passed"
        rows = [row for row in rows if row not in passed]
    if rows:
        yield from table(rows, part.spec["part"], COLUMNS[part.spec["part"]])


def _complain(what: str, cure: str = "") -> None:
    print(f"error: {what}" + (f"\nhint: {cure}" if cure else ""), file=sys.stderr)


def _link_checkout() -> None:
    """Make the checkout that this file lies in the package `sonomime`, whatever it is called."""
    here = Path(__file__).resolve().parent
    root = here.parent
    # Else modules beside this file would be found under their bare names.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    spec = importlib.util.spec_from_file_location(
        "sonomime", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["sonomime"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if not __package__:
        _link_checkout()
    from sonomime.benchmarks.gpu_check import main as run

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            # As an exit, so that what it has started is stopped too.
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(run())
