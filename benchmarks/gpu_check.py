"""One command for any NVIDIA machine: are the kernels right, what costs a frame, what is absent?

    python benchmarks/gpu_check.py -o gpu.json            from a checkout, nothing installed
    python -m sonomime.benchmarks.gpu_check -o gpu.json   where sonomime is installed

It needs Python 3.11, numpy, torch and a compiler (nvcc for the GPU), and uses what else it finds:
ONNX Runtime, TensorRT, TensorRT-RTX. Every part runs in a process of its own (`gpu.parts`), what
matters most first; this one never touches the GPU. The report is written again with every row, so
that one that is cut short is worth something. Without a GPU it does what a CPU can do, says so, and
ends with an error; `--cpu-only` asks for just that.
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
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .gpu.child import Message

MODELS = ("ours-ptg", "lite")
BACKENDS = ("ort-cuda", "tensorrt", "rtx", "ort-cpu")
_OPTIONAL = (
    "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "cuda.bindings", "onnx", "cv2", "av",
)  # fmt: skip
_PACKAGES = {  # where a module is not of a package of its own name
    "cuda.bindings": "cuda-bindings",
    "tensorrt_rtx_bindings": "tensorrt-rtx-cu13-bindings",
}
EXIT_NO_GPU, EXIT_DIFFERS, EXIT_CUT_SHORT = 4, 5, 8
# A row may take half of its part's time, but where little is left so much: some compile for long.
ROW_SECONDS = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Check, write the report, print the tables; the exit code: 5 when something failed or differs
    from what it should be, else 8 when time ran out, else 4 without a GPU."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)

    from sonomime.runtime.support.errors import SonomimeError

    if args.part is not None:
        from .gpu.child import speak
        from .gpu.parts import run_part

        speak(run_part(args, args.part))
        os._exit(0)  # all is said; CUDA's end may hang
    try:
        return Check(args, words).run()
    except SonomimeError as error:
        _complain(error.message, error.hint)
        return error.exit_code


def parser() -> argparse.ArgumentParser:
    """The command line; a part's own process is given its part with the same options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write everything")
    made.add_argument("--cpu-only", action="store_true", help="only what needs no GPU")
    made.add_argument(
        "--models", default=",".join(MODELS), metavar="A,B",
        help=f"presets, untrained ({','.join(MODELS)}); empty: none",
    )  # fmt: skip
    made.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained model as well")
    made.add_argument("--bundle", type=Path, metavar="B", help="for the backends (the default one)")
    made.add_argument("--frames", type=int, default=300, metavar="N", help="frames timed (300)")
    made.add_argument(
        "--minutes", type=float, default=60.0, metavar="M",
        help="be over by then: what runs is stopped, what is left is left out (60)",
    )  # fmt: skip
    made.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    made.add_argument("--small", action="store_true", help="tiny models, to try the check itself")
    made.add_argument("--part", type=json.loads, help=argparse.SUPPRESS)
    return made


def command(words: Sequence[str], spec: dict[str, Any]) -> list[str]:
    """The command of a part: this file, as from a checkout, with the same options."""
    return [sys.executable, str(Path(__file__).resolve()), *words, "--part", json.dumps(spec)]


@dataclass
class Part:
    """What is asked of processes, one after the other, and where in the report the answers go."""

    title: str
    key: str  # what a row goes by
    entry: dict[str, Any]
    specs: list[dict[str, Any]]


class Check:
    """The parts, one after the other, and the report that they add up to."""

    def __init__(self, args: argparse.Namespace, words: Sequence[str]) -> None:
        self.args = args
        self.words = words
        self.began = perf_counter()
        self.report: dict[str, Any] = {}
        self.device = "cpu"

    def run(self) -> int:
        """All parts. Returns the exit code."""
        self._about()
        with tempfile.TemporaryDirectory() as folder:
            self.folder = Path(folder)
            machine = Part("machine", "", self.report, [{"part": "machine"}])
            self._run(machine, 0.5)
            gpu = self.report.setdefault("gpu", {"absent": "not known"})
            self.device = "cuda" if "name" in gpu else "cpu"
            name = gpu.get("name") or f"no GPU ({gpu['absent']})"
            print(f"torch {self.report.get('torch', {}).get('version', 'absent')}, {name}")
            parts = self._parts()
            for part in parts:
                # One that hangs leaves the others half of the time that was left.
                self._run(part, 1.0 if part is parts[-1] else 0.5)
                print("\n" + "\n".join(_lines(part)), flush=True)
        self._save()
        return self._verdict([machine, *parts])

    def _about(self) -> None:
        from .gpu.state import read_state
        from .measure import environment, installed, version

        found = {
            name: version(_PACKAGES.get(name, name), f"{name}-gpu") or "of unknown version"
            for name in _OPTIONAL
            if installed(name)
        }
        absent = [name for name in _OPTIONAL if name not in found]
        asked = {name: value for name, value in vars(self.args).items() if name != "part"}
        self.report |= {
            "asked": json.loads(json.dumps(asked, default=str)),
            "environment": environment(),
            "found": found,
            "absent": absent,
            "nvidia_smi": read_state(),
        }
        print("absent: " + (", ".join(absent) or "nothing"), flush=True)

    def _parts(self) -> list[Part]:
        """What matters most first; what torch has to compile, for minutes, after all the rest."""
        args = self.args
        kernels = self.report["kernels"] = {"rows": []}
        models = {
            name: Part(title, "variant", {"model": title, "rows": []}, [])
            for name, title in self._wanted()
        }
        self.report["models"] = [part.entry for part in models.values()]
        backends = self.report["backends"] = self._bundle()
        names = ("ort-cpu",) if args.cpu_only else BACKENDS
        specs = [{"part": "backend", "name": name} for name in names if "rows" in backends]

        def ways(compiled: bool) -> list[Part]:
            return [
                replace(part, specs=[{"part": "model", "name": name, "compiled": compiled}])
                for name, part in models.items()
            ]

        parts = [Part("kernels", "case", kernels, [{"part": "kernels"}]), *ways(compiled=False)]
        parts.append(Part("backends", "backend", backends, specs))
        if self.device == "cuda" and not args.no_compile:
            parts += ways(compiled=True)
        return parts

    def _wanted(self) -> Iterator[tuple[str, str]]:
        """Models by their preset, none for the checkpoint's, and what they are called."""
        if self.args.checkpoint is not None:
            yield "", f"{self.args.checkpoint.name}, golden frames"
        for preset in filter(None, self.args.models.split(",")):
            yield preset, f"{preset}, untrained, speckle" + (", small" if self.args.small else "")

    def _bundle(self) -> dict[str, Any]:
        from ..runtime.bundle.bundle import Bundle
        from .gpu.rows import said

        try:
            bundle = Bundle.open(self.args.bundle)
        except Exception as error:
            return {"failed": said(error)}
        return {"bundle": bundle.manifest.name, "digest": bundle.digest, "rows": []}

    def _run(self, part: Part, share: float) -> None:
        """Run a part within its share of the time that is left."""
        until = perf_counter() + share * (self.began + 60 * self.args.minutes - perf_counter())
        for word in ("stopped", "left_out"):
            part.entry.pop(word, None)  # of an earlier part, whose rest this one is asked for too
        for spec in part.specs:
            while self._child(part, spec, until):
                pass

    def _child(self, part: Part, spec: dict[str, Any], until: float) -> bool:
        """One process. Returns whether another should go on with what this one did not get to:
        what ends a process costs the row that it was at."""
        from .gpu.child import listen

        rows = part.entry.get("rows", [])

        def limit() -> float:
            left = until - perf_counter()
            return min(left, max(left / 2, ROW_SECONDS))

        if limit() <= 0:
            part.entry["left_out"] = ("the rest: " if rows else "") + "out of time"
            self._save()
            return False
        at, spoilt = "", False

        def heard(message: Message) -> None:
            nonlocal at, spoilt
            if "begin" in message:
                at = message["begin"]
                return
            if "failed" in message and at:  # outside of what the row watches over itself
                rows.append({part.key: at} | message)
                spoilt = True
            elif "row" in message:
                rows.append(message["row"])
            elif "spoilt" in message:
                spoilt = True
            else:
                part.entry.update(message)
            at = ""
            self._save()

        built = "build_seconds" in self.report.get("kernels", ())
        asked = spec | {
            "device": self.device,
            "folder": str(self.folder),
            "library": str(next(self.folder.glob("*.so"))) if built else None,
            "done": [row[part.key] for row in rows],
        }
        ended = listen(command(self.words, asked), limit, heard)
        died = bool(at)
        if died:
            rows.append({part.key: at} | (ended or {"failed": "it ended without a word"}))
        elif not spoilt:
            part.entry.update(ended)
        self._save()
        return died or spoilt

    def _verdict(self, parts: Sequence[Part]) -> int:
        from .gpu.rows import trouble

        if self.args.output is not None:
            print(self.args.output)
        whole = {part.title: part for part in parts}.values()  # a model is asked for twice
        rows = [(row[part.key], row) for part in whole for row in part.entry.get("rows", ())]
        rows += [(f"{part.title} ({trouble(part.entry)})", part.entry) for part in whole]
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
        if self.device == "cuda" or self.args.cpu_only:
            return 0
        _complain(
            "torch finds no GPU, so nothing above was computed by one",
            "check nvidia-smi and that torch is built for CUDA; --cpu-only asks for this",
        )
        return EXIT_NO_GPU

    def _save(self) -> None:
        if self.args.output is not None:
            from ..runtime.support.atomic_files import atomic_write_text

            self.report["seconds"] = perf_counter() - self.began
            text = json.dumps(self.report, indent=1, allow_nan=False)
            atomic_write_text(self.args.output, text + "\n")


def _complain(what: str, cure: str = "") -> None:
    print(f"error: {what}" + (f"\nhint: {cure}" if cure else ""), file=sys.stderr)


def _lines(part: Part) -> Iterator[str]:
    """What a part has found so far, for a person."""
    from .gpu.rows import remarks, trouble

    why = trouble(part.entry)
    yield part.title + (f": {why}" if why else "") + remarks(part.entry)
    if rows := part.entry.get("rows"):
        if part.key == "case":
            from .gpu.kernel_check import kernel_lines as lines
        elif part.key == "variant":
            from .gpu.torch_check import torch_lines as lines
        else:
            from .gpu.backend_check import backend_lines as lines
        yield from lines(rows)


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
            # As an exit, so that it stops what it has started too.
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    sys.exit(run())
