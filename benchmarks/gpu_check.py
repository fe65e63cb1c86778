"""One command for any NVIDIA machine: are the kernels right, what costs a frame, what is absent?

    python benchmarks/gpu_check.py -o gpu.json            from a checkout, nothing installed
    python -m sonomime.benchmarks.gpu_check -o gpu.json   where sonomime is installed

It needs Python 3.11, numpy, torch and a compiler (nvcc for the GPU), and uses what else it finds:
ONNX Runtime, TensorRT, TensorRT-RTX. The report is written anew after every part, so that one that
is cut short is worth something. Without a GPU it does what a CPU can do, says so, and ends with an
error; `--cpu-only` asks for just that.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .kernels import Kernels

MODELS = ("lite", "ours-ptg")
_OPTIONAL = (
    "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "cuda.bindings", "onnx", "cv2", "av",
)  # fmt: skip
EXIT_NO_GPU, EXIT_DIFFERS = 4, 5
_TROUBLE = {"failed", "left_out"}


def main(argv: list[str] | None = None) -> int:
    """Check, write the report, print the tables; the exit code: 4 without a GPU, 5 when something
    differs from what it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="write everything")
    parser.add_argument("--cpu-only", action="store_true", help="only what needs no GPU")
    parser.add_argument(
        "--models", default=",".join(MODELS), metavar="A,B",
        help=f"presets, untrained ({','.join(MODELS)}); empty: none",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained model as well")
    parser.add_argument(
        "--bundle", type=Path, metavar="B", help="for the backends (the default one)"
    )
    parser.add_argument("--frames", type=int, default=300, metavar="N", help="frames timed (300)")
    parser.add_argument(
        "--minutes", type=float, default=60.0, metavar="M", help="begin no new part after so long"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the check itself")
    args = parser.parse_args(argv)

    from sonomime.runtime.errors import SonomimeError

    try:
        return Check(args).run()
    except SonomimeError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code


class Check:
    """The parts, one after the other, and the report that they add up to."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.began = perf_counter()
        self.report: dict[str, Any] = {}

    def run(self) -> int:
        """All parts. Returns the exit code."""
        from .kernel_check import kernel_lines

        device = self._machine()
        with tempfile.TemporaryDirectory() as folder:
            kernels = self._kernels(device, Path(folder))
            if "rows" in self.report["kernels"]:
                print("\n".join(kernel_lines(self.report["kernels"]["rows"])), flush=True)
            self._models(device, kernels, compiled=False)
            self._backends()
            self._models(device, kernels, compiled=True)
        self._save()
        return self._verdict(device)

    def _machine(self) -> torch.device:
        import torch

        from .gpu_state import read_state
        from .measure import environment

        gpu = torch.cuda.is_available() and not self.args.cpu_only
        found, absent = {}, []
        for name in _OPTIONAL:
            with suppress(ImportError, ValueError):
                if importlib.util.find_spec(name) is not None:
                    found[name] = _version(name)
                    continue
            absent.append(name)
        self.report |= {
            "environment": environment(),
            "torch": {
                "version": torch.__version__,
                "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
            },
            "found": found,
            "absent": absent,
            "gpu": _gpu_facts()
            if gpu
            else {"absent": "not asked" if self.args.cpu_only else "none"},
            "nvidia_smi": read_state(),
        }
        print(f"torch {torch.__version__}, " + (self.report["gpu"].get("name") or "no GPU"))
        print("absent: " + (", ".join(absent) or "nothing"))
        self._save()
        return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")

    def _kernels(self, device: torch.device, folder: Path) -> Kernels | None:
        from .kernel_check import cases, check_kernels
        from .kernels import Kernels, build_command

        kind = "cuda" if device.type == "cuda" else "cpu"
        try:
            began = perf_counter()
            kernels = Kernels.build(kind, folder)
            self.report["kernels"] = {
                "command": " ".join(build_command(kind, Path("LIBRARY"))),
                "build_seconds": perf_counter() - began,
            }
            self.report["kernels"]["rows"] = check_kernels(
                kernels, device, cases(small=kind == "cpu"), 20 if kind == "cuda" else 2
            )
            return kernels
        except Exception as error:  # the rest is worth knowing all the same
            self.report.setdefault("kernels", {})["failed"] = _said(error)
            print(f"kernels: {_said(error)}", flush=True)
            return None
        finally:
            self._save()

    def _models(self, device: torch.device, kernels: Kernels | None, compiled: bool) -> None:
        """Every model in every way; what has to be compiled, for minutes, after all the rest."""
        from .torch_check import torch_lines, variants

        todo = variants(device.type == "cuda", not self.args.no_compile, kernels is not None)
        ways = [variant for variant in todo if variant.compiled == compiled]
        models = self.report.setdefault("models", [])
        made = {entry["model"]: entry for entry in models}
        for name, make in self._wanted() if ways else ():
            if name not in made:
                made[name] = {"model": name, "rows": []}
                models.append(made[name])
            entry = made[name]
            self._model(entry, make, device, kernels, ways)
            print(f"\n{name}" + "".join(f": {entry[k]}" for k in _TROUBLE & set(entry)))
            print("\n".join(torch_lines(entry["rows"])), flush=True)

    def _model(
        self, entry: dict[str, Any], make: Callable[[], Any], device: torch.device,
        kernels: Kernels | None, ways: list[Any],
    ) -> None:  # fmt: skip
        from .torch_check import check_model

        if self._late():
            entry["left_out"] = "some ways: out of time"
            return
        try:
            model, pictures = make()
            entry["size"] = pictures.source.shape[0]
            count = self._count(device.type == "cuda")
            plain = not any(way.compiled for way in ways)
            for row in check_model(model, device, pictures, kernels, count, ways, plain):
                entry["rows"].append(row)
                self._save()
                if self._late():
                    entry["left_out"] = "some ways: out of time"
                    return
        except Exception as error:
            entry["failed"] = _said(error)

    def _wanted(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Models by name, and how each is made, with its pictures."""
        from .lively import SMALL, lively_model, speckle
        from .torch_check import Pictures

        args = self.args

        def untrained(preset: str) -> Any:
            from ..training.config import load_config

            small = SMALL if args.small else ()
            model = lively_model(load_config(preset, small))
            size, channels = model.config.image_size, model.config.channels
            shots = [speckle(size, channels, seed) for seed in range(5)]
            return model, Pictures(shots[0], shots[1], tuple(shots[2:]))

        def trained() -> Any:
            from ..runtime.bundle import Bundle, sha256_file
            from ..training.checkpoint import load_checkpoint
            from .png_reader import read_png

            model = load_checkpoint(args.checkpoint).model()
            bundle = Bundle.open(args.bundle)
            golden = bundle.manifest.golden
            source, driving, made = (
                read_png(bundle.folder / each.file)
                for each in (golden.source, golden.driving, golden.output)
            )
            same = bundle.manifest.provenance.checkpoint_sha256 == sha256_file(args.checkpoint)
            shots = (driving, source, driving)
            return model, Pictures(source, source, shots, made if same else None)

        if args.checkpoint is not None:
            yield f"{args.checkpoint.name}, golden frames", trained
        for preset in filter(None, args.models.split(",")):
            yield f"{preset}, untrained, speckle", lambda preset=preset: untrained(preset)

    def _backends(self) -> None:
        from ..runtime.bundle import Bundle
        from .backend_check import backend_lines, check_backends

        try:
            bundle = Bundle.open(self.args.bundle)
        except Exception as error:
            self.report["backends"] = {"failed": _said(error)}
            return
        names = ("ort-cpu",) if self.args.cpu_only else ("ort-cpu", "ort-cuda", "tensorrt", "rtx")
        rows: list[dict[str, Any]] = []
        self.report["backends"] = {
            "bundle": bundle.manifest.name,
            "digest": bundle.digest,
            "rows": rows,
        }
        count = min(self.args.frames, 20) if self.args.cpu_only else self.args.frames
        try:
            for name in names:
                if self._late():
                    self.report["backends"]["left_out"] = f"from {name} on: out of time"
                    break
                rows += check_backends(bundle, count, [name])
                self._save()
        except Exception as error:  # such as a golden picture that cannot be read
            self.report["backends"]["failed"] = _said(error)
        print(f"\nbundle {bundle.manifest.name}, golden frame")
        print("\n".join(backend_lines(rows)), flush=True)

    def _verdict(self, device: torch.device) -> int:
        from .gpu_state import state_line

        rows = [*self.report["kernels"].get("rows", ())]
        for model in self.report["models"]:
            rows += model["rows"]
        rows += self.report["backends"].get("rows", ())
        wrong = [row for row in rows if "failed" in row or not row.get("agrees", True)]
        watched = next((row["gpu"] for row in reversed(rows) if "gpu" in row), None)
        if watched:
            print(state_line(watched))
        if self.args.output is not None:
            print(self.args.output)
        names = [row.get("case") or row.get("variant") or row.get("backend") for row in wrong]
        parts = [("kernels", self.report["kernels"]), ("backends", self.report["backends"])]
        parts += [(model["model"], model) for model in self.report["models"]]
        names += [f"{name} ({part['failed']})" for name, part in parts if "failed" in part]
        if names:
            print(
                f"error: failed, or differs from what it should be: {'; '.join(names)}",
                file=sys.stderr,
            )
            return EXIT_DIFFERS
        if device.type != "cuda" and not self.args.cpu_only:
            print(
                "error: torch finds no GPU, so nothing above was computed by one\n"
                "hint: check nvidia-smi and that torch is built for CUDA; --cpu-only asks for this",
                file=sys.stderr,
            )
            return EXIT_NO_GPU
        return 0

    def _count(self, gpu: bool) -> int:
        return self.args.frames if gpu else min(self.args.frames, 5)

    def _late(self) -> bool:
        return perf_counter() - self.began > 60 * self.args.minutes

    def _save(self) -> None:
        if self.args.output is not None:
            from ..runtime.files import atomic_write_text

            self.report["seconds"] = perf_counter() - self.began
            atomic_write_text(self.args.output, json.dumps(self.report, indent=1) + "\n")


def _gpu_facts() -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(0)
    return {
        "name": facts.name,
        "compute_capability": f"{facts.major}.{facts.minor}",
        "memory_mb": facts.total_memory / 1e6,
        "multiprocessors": facts.multi_processor_count,
        "cache_mb": facts.L2_cache_size / 1e6,
    }


def _version(module: str) -> str:
    names = {
        "cuda.bindings": "cuda-bindings",
        "tensorrt_rtx_bindings": "tensorrt-rtx-cu13-bindings",
    }
    for name in (names.get(module, module), module + "-gpu"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "of unknown version"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


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

    sys.exit(run())
