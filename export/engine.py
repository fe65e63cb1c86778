"""A bundle's stages become TensorRT engines, on the machine that is to run them.

One code base for both flavours: strongly typed networks (precision lives in the graph, so building
converts nothing), the ONNX parser, one serialized engine per stage. Engines are machine code, so
only what this user's own cache built is used again: a folder nobody else can enter, and a digest
beside each engine.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.bundle import Bundle, Stage
from ..runtime.errors import BackendError, OutputError
from ..runtime.files import atomic_folder, atomic_path, cache_folder
from ..runtime.progress import progress

SIDECAR = "engine.json"

# TensorRT-RTX compiles for each of these where it runs; it serves Ampere and later, but not 9.0
# (H100).
RTX_OLDEST = 80


@dataclass(frozen=True)
class Flavour:
    """A TensorRT: where it is imported from, how to get it, and what an engine is built for."""

    name: str
    module: str
    cure: str
    targets: Callable[[Any], list[str]]


@dataclass(frozen=True)
class Engine:
    """A stage's engine in the cache, or where it was written to."""

    stage: str
    path: Path
    size: int
    cached: bool

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "path": str(self.path)}


def _rtx_targets(trt: Any) -> list[str]:
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return [name for name in names if int(name[2:]) >= RTX_OLDEST]


def _this_gpu(trt: Any) -> list[str]:
    """Name and compute capability of the current GPU: engines of full TensorRT serve no other."""
    hint = (
        'it builds on the GPU that runs the engine: pip install "sonomime[gpu]", check nvidia-smi'
    )
    try:
        runtime = importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(f"cuda-bindings cannot be imported: {error}", hint) from error
    status, properties = runtime.cudaGetDeviceProperties(0)
    if int(status) != 0:
        raise BackendError(f"CUDA reports no GPU (error {int(status)})", hint)
    return [f"{properties.name.decode()} {properties.major}.{properties.minor}"]


FLAVOURS = {
    flavour.name: flavour
    for flavour in (
        # The one place that names the packages.
        Flavour("rtx", "tensorrt_rtx_bindings", 'pip install "sonomime[rtx]"', _rtx_targets),
        Flavour(
            "tensorrt", "tensorrt", "pip install tensorrt, or build with --flavour rtx", _this_gpu
        ),
    )
}


def load_flavour(name: str) -> tuple[Flavour, Any]:
    """A flavour and its module.

    Raises:
        BackendError: the package is absent or cannot be loaded; the hint names the cure.
    """
    flavour = FLAVOURS[name]
    try:
        return flavour, importlib.import_module(flavour.module)
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BackendError(
            f"{flavour.module} cannot be imported: {reason}", flavour.cure
        ) from error


def build_engines(bundle: Bundle, flavour: str = "rtx", out: Path | None = None) -> list[Engine]:
    """Build the engines that the cache lacks; with ``out``, copy all there as STAGE.engine.

    Raises:
        BackendError: the flavour is not installed, or cannot parse or build a stage.
        OutputError: the cache or ``out`` cannot be written.
    """
    kind, trt = load_flavour(flavour)
    targets = kind.targets(trt)
    engines = []
    for stage in progress(bundle.manifest.stages, label=f"building {flavour} engines"):
        engine = _cached_or_built(bundle, stage, kind, trt, targets)
        if out is not None:
            copy = out / f"{stage.name}.engine"
            with atomic_path(copy) as temporary:
                temporary.write_bytes(engine.path.read_bytes())
            engine = Engine(stage.name, copy, engine.size, engine.cached)
        engines.append(engine)
    return engines


def cache_root() -> Path:
    """Where engines are kept."""
    return cache_folder() / "engines"


def engine_facts(stage: Stage, flavour: str, version: str, targets: list[str]) -> dict[str, Any]:
    """What an engine depends on; its digest is the engine's key."""
    return {"onnx_sha256": stage.sha256, "flavour": flavour, "version": version, "targets": targets}


def engine_key(facts: dict[str, Any]) -> str:
    """Name of the cache's folder for an engine."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _cached_or_built(
    bundle: Bundle, stage: Stage, flavour: Flavour, trt: Any, targets: list[str]
) -> Engine:
    facts = engine_facts(stage, flavour.name, trt.__version__, targets)
    folder = cache_root() / engine_key(facts)
    path = folder / f"{stage.name}.engine"
    if is_trusted(folder, path):
        return Engine(stage.name, path, path.stat().st_size, cached=True)
    content = compile_stage(bundle.read(stage.file), stage.name, flavour, trt, targets)
    sidecar = {**facts, "stage": stage.name, "sha256": hashlib.sha256(content).hexdigest()}
    try:
        with atomic_folder(folder, replace=True) as temporary:
            temporary.chmod(0o700)
            (temporary / path.name).write_bytes(content)
            (temporary / SIDECAR).write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
    except OutputError:
        # Another process may have been faster.
        if not is_trusted(folder, path):
            raise
    return Engine(stage.name, path, len(content), cached=False)


def is_trusted(folder: Path, engine: Path) -> bool:
    """Whether this user's own cache built it: a private folder, a digest that agrees."""
    try:
        facts = folder.stat()
        if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or engine.is_symlink():
            return False
        expected = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))["sha256"]
        return bool(hashlib.sha256(engine.read_bytes()).hexdigest() == expected)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def compile_stage(onnx: bytes, name: str, flavour: Flavour, trt: Any, targets: list[str]) -> bytes:
    """Parse and build one ONNX model.

    Raises:
        BackendError: with what the parser or the builder said.
    """
    logger = _logger(trt)
    hint = f"{flavour.module} {trt.__version__} may be too old ({flavour.cure}), or export again"

    def failed(what: str, said: list[str]) -> BackendError:
        reason = said[0] if said else "it gave no reason"
        return BackendError(f"stage {name!r} could not be {what}: {reason}", hint)

    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        said = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise failed("parsed", said or logger.errors)
    config = builder.create_builder_config()
    # A bundle's precision is the engine's: float32 is not to become TF32 on the way.
    config.clear_flag(trt.BuilderFlag.TF32)
    if flavour.name == "rtx":
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(trt.ComputeCapability.__members__[target], i)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise failed("built", logger.errors)
    return bytes(serialized)


def _logger(trt: Any) -> Any:
    """A logger that keeps the errors; its class can only be made once TensorRT is there."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.Severity.ERROR):
                self.errors.append(message)

    return Logger()
