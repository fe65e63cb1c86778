"""The parts of `gpu_check`, each for a process of its own.

A part says what it begins and what came of it, and ends with the first failure on a GPU, which may
spoil its process; another one is then asked for what is not `done`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ...runtime.bundle.bundle import Bundle
from ...runtime.support.plain_file import sha256_file
from ...runtime.support.progress import progress
from .child import Message
from .rows import said, spoils

if TYPE_CHECKING:
    import torch

    from .torch_check import Pictures


def run_part(args: argparse.Namespace, spec: dict[str, Any]) -> Iterator[Message]:
    """What a part has to say. `spec`: its `part`, the `device` (cuda or cpu), the names `done` in
    earlier processes, and what else the part wants."""
    parts = {"machine": _machine, "kernels": _kernels, "model": _model, "backend": _backend}
    try:
        for message in parts[spec["part"]](args, spec):
            yield message
            if spec["device"] == "cuda" and spoils(message.get("row", {})):
                yield {"spoilt": True}
                return
    except Exception as error:  # the other parts are worth knowing all the same
        yield {"failed": said(error)}


def _machine(args: argparse.Namespace, spec: dict[str, Any]) -> Iterator[Message]:
    import torch

    yield {
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    }
    if args.cpu_only or not torch.cuda.is_available():
        yield {"gpu": {"absent": "not asked" if args.cpu_only else "none"}}
        return
    facts = torch.cuda.get_device_properties(0)
    yield {
        "gpu": {
            "name": facts.name,
            "compute_capability": f"{facts.major}.{facts.minor}",
            "memory_mb": facts.total_memory / 1e6,
            "multiprocessors": facts.multi_processor_count,
            "cache_mb": facts.L2_cache_size / 1e6,
        }
    }


def _device(spec: dict[str, Any]) -> torch.device:
    import torch

    gpu = spec["device"] == "cuda"
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def _kernels(args: argparse.Namespace, spec: dict[str, Any]) -> Iterator[Message]:
    from .kernel_check import cases, check_kernels
    from .kernels import Kernels, build_command
    from .state import Watch

    device, kind = _device(spec), spec["device"]
    if spec["library"]:
        kernels = Kernels(Path(spec["library"]))
    else:
        yield {"command": " ".join(build_command(kind, Path("LIBRARY")))}
        began = perf_counter()
        kernels = Kernels.build(kind, Path(spec["folder"]))
        yield {"build_seconds": perf_counter() - began}
    todo = [case for case in cases(small=kind == "cpu") if case.name not in spec["done"]]
    with Watch() as watch:
        for case in progress(todo, label="kernels"):
            yield {"begin": case.name}
            (row,) = check_kernels(kernels, device, [case], 20 if kind == "cuda" else 2)
            yield {"row": row}
    if kind == "cuda":
        yield {"gpu": watch.summary}


def _model(args: argparse.Namespace, spec: dict[str, Any]) -> Iterator[Message]:
    from .kernels import Kernels
    from .torch_check import check_model, variants

    device, gpu = _device(spec), spec["device"] == "cuda"
    kernels = Kernels(Path(spec["library"])) if spec["library"] else None
    ways = variants(gpu, spec["compiled"], kernels is not None)  # among them what was left out
    todo = [way for way in ways if way.name not in spec["done"]]
    if spec["name"]:
        model, pictures = _untrained(spec["name"], args.small)
    else:
        model, pictures = _trained(args)
    yield {"size": pictures.source.shape[0]}
    count = args.frames if gpu else min(args.frames, 5)
    yield from check_model(model, device, pictures, kernels, count, todo)


def _untrained(preset: str, tiny: bool) -> tuple[Any, Pictures]:
    from ...training.config import load_config
    from ..lively import lively_model, small_config, speckle
    from .torch_check import Pictures

    model = lively_model(small_config(preset) if tiny else load_config(preset))
    size, channels = model.config.image_size, model.config.channels
    shots = [speckle(size, channels, seed) for seed in range(5)]
    return model, Pictures(shots[0], shots[1], tuple(shots[2:]))


def _trained(args: argparse.Namespace) -> tuple[Any, Pictures]:
    from ...training.checkpoint import load_checkpoint
    from .torch_check import Pictures

    model, bundle = load_checkpoint(args.checkpoint).model(), Bundle.open(args.bundle)
    same = bundle.manifest.provenance.checkpoint_sha256 == sha256_file(args.checkpoint)
    return model, Pictures.of_bundle(bundle, known=same)


def _backend(args: argparse.Namespace, spec: dict[str, Any]) -> Iterator[Message]:
    from .backend_check import check_backend

    if spec["name"] in spec["done"]:
        return
    yield {"begin": spec["name"]}
    count = min(args.frames, 20) if args.cpu_only else args.frames
    gpu = spec["device"] == "cuda"
    yield {"row": check_backend(Bundle.open(args.bundle), spec["name"], count, gpu)}
