"""Build TensorRT engines of a bundle's stages, on the machine that is to run them.

The same code serves both flavours: strongly typed networks (precision is in the graph, so building
converts nothing), the ONNX parser, one serialized engine per stage, one file per bundle. The
runtime's `engine_store` decides where the files are kept and which of them are used.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from ..runtime.backends.cuda import open_device
from ..runtime.backends.onnx_file import read_stage
from ..runtime.backends.tensorrt import engine_logger
from ..runtime.bundle.bundle import Bundle
from ..runtime.engines.engine_file import EngineManifest, Precision, StageEngine, read_engine_file
from ..runtime.engines.engine_store import Facts, cached_path, is_trusted, store
from ..runtime.engines.tensorrt_packages import (
    Flavour,
    gpu_target,
    load_flavour,
    load_plugin,
    rtx_targets,
)
from ..runtime.support.atomic_files import atomic_path
from ..runtime.support.dataclass_parser import plain
from ..runtime.support.errors import BackendError, ConfigError, output_errors
from ..runtime.support.progress import progress


class Build(NamedTuple):
    """The engines of a bundle: their file, whether the cache had it, and what is in it."""

    path: Path
    cached: bool
    plugin: Path | None
    manifest: EngineManifest

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        plugin = self.plugin and str(self.plugin)
        return {"path": str(self.path), "cached": self.cached, "plugin": plugin} | plain(
            self.manifest
        )


def choose_flavour(device: int | None = None) -> tuple[str, str]:
    """The default flavour and why: tensorrt if it and a GPU are there or a GPU was named."""
    if device is not None:
        return "tensorrt", f"its engines are for one GPU, and GPU {device} was named"
    try:
        trt = load_flavour("tensorrt")[1]
        (gpu,) = targets_of("tensorrt", trt)
    except BackendError as error:
        return "rtx", f"no engines of full TensorRT: {error.message}"
    return "tensorrt", f"TensorRT {trt.__version__} is installed, the GPU is {gpu}"


def targets_of(flavour: str, trt: Any, device: int | None = None) -> list[str]:
    """What engines of a flavour are built for. Engines of full TensorRT serve one GPU: the one of
    that number, or the first.

    Raises:
        BackendError: there is no such GPU to build for.
    """
    if flavour == "rtx":
        return rtx_targets(trt)
    try:
        gpu = open_device(device)
    except BackendError as error:
        hints = filter(None, ("it builds on the GPU that runs the engine", error.hint))
        raise BackendError(error.message, ": ".join(hints)) from error
    return [gpu_target(gpu.name, *gpu.capability)]


def build_engines(
    bundle: Bundle, flavour: str = "rtx", out: Path | None = None, device: int | None = None
) -> Build:
    """Build a bundle's engines unless the cache has them; with ``out``, copy the file there.

    Args:
        flavour: a key of FLAVOURS.
        device: number of the GPU that full TensorRT builds on and for, from 0; None: the first.

    Raises:
        ConfigError: a GPU was named for TensorRT-RTX.
        BackendError: the flavour is not installed, cannot parse or build a stage, or cannot load
            the plugin; there is no such GPU.
        OutputError: the cache or ``out`` cannot be written.
    """
    if flavour == "rtx" and device is not None:
        raise ConfigError(
            f"GPU {device} was named, but TensorRT-RTX builds for all the GPUs that it serves",
            "leave the device out, or take the flavour tensorrt",
        )
    kind, trt = load_flavour(flavour)
    facts = Facts.wanted(bundle, flavour, trt.__version__, targets_of(flavour, trt, device))
    plugin = load_plugin(trt) if facts.plugin_sha256 else None
    path = cached_path(facts)
    cached = _cached(path, facts)
    # TensorRT builds for the calling thread's GPU.
    gpu = open_device(device).current() if flavour == "tensorrt" and not cached else nullcontext()
    with gpu:
        manifest = cached or _built(bundle, kind, trt, facts, device)
    if out is not None:
        with atomic_path(out) as temporary, output_errors(out):
            shutil.copyfile(path, temporary)
    return Build(out or path, cached is not None, plugin, manifest)


def _cached(path: Path, facts: Facts) -> EngineManifest | None:
    """The cached engines, if the file is sound and this user built or trusts it."""
    with suppress(BackendError):
        found = read_engine_file(path)
        sound = is_trusted(found.sha256) and Facts.stated(found.manifest) == facts
        return found.manifest if sound and not path.is_symlink() else None
    return None


def _built(
    bundle: Bundle, kind: Flavour, trt: Any, facts: Facts, device: int | None
) -> EngineManifest:
    stages, engines = [], {}
    for stage in progress(list(bundle.manifest.stages), label=f"building {kind.name} engines"):
        onnx, targets = read_stage(bundle, stage), list(facts.targets)
        engines[stage.name], made = compile_stage(onnx, stage.name, kind, trt, targets, device)
        stages.append(made)
    manifest = EngineManifest(
        bundle=bundle.manifest.name,
        bundle_digest=bundle.digest,
        flavour="rtx" if kind.name == "rtx" else "tensorrt",
        version=facts.version,
        targets=facts.targets,
        stages=tuple(stages),
        plugin_sha256=facts.plugin_sha256,
        recipe=facts.recipe,
    )
    store(manifest, engines, "built")
    return manifest


def compile_stage(
    onnx: bytes, name: str, flavour: Flavour, trt: Any, targets: list[str],
    device: int | None = None,
) -> tuple[bytes, StageEngine]:  # fmt: skip
    """Parse and build one ONNX model; `tensorrt_packages.RECIPE` says with which settings.

    Returns:
        the engine, and its description, with figures of the built engine if there is a GPU.

    Raises:
        BackendError: with the message of the parser or the builder.
    """
    began = perf_counter()
    logger = engine_logger(trt)
    logger.reason()  # drop what was logged about something else
    hint = f"{flavour.module} {trt.__version__} may be too old ({flavour.cure}), or export again"

    def failed(what: str, reason: str) -> BackendError:
        return BackendError(f"stage {name!r} could not be {what}: {reason}", hint)

    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        if parser.num_errors == 0:
            raise failed("parsed", logger.reason())
        error = parser.get_error(0)
        operator = error.node_operator()
        raise failed("parsed", error.desc() + (f" (operator {operator})" if operator else ""))
    config = builder.create_builder_config()
    # The engine has the bundle's precision: float32 must not become TF32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if flavour.name == "rtx":
        config.num_compute_capabilities = len(targets)
        for i, target in enumerate(targets):
            config.set_compute_capability(trt.ComputeCapability.__members__[target], i)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise failed("built", logger.reason())
    content = bytes(serialized)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    # By the type of their first output.
    kinds = [str(each.get_output(0).dtype) for each in layers if each.num_outputs]
    precisions = Counter(_dtype(kind.rpartition(".")[2]) for kind in kinds).most_common()
    engine = _loaded(content, trt, logger, device)
    memory = getattr(engine, "device_memory_size_v2", None)
    return content, StageEngine(
        name=name,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        seconds=round(perf_counter() - began, 3),
        layers=len(layers),
        precisions=tuple(Precision(*each) for each in precisions),
        plugin_layers=sum("PLUGIN" in str(layer.type) for layer in layers),
        engine_layers=engine and engine.num_layers,
        device_memory_bytes=engine and (engine.device_memory_size if memory is None else memory),
    )


def _dtype(kind: str) -> str:
    """Numpy's name of TensorRT's type."""
    return {"FLOAT": "float32", "HALF": "float16"}.get(kind, kind.lower())


def _loaded(content: bytes, trt: Any, logger: Any, device: int | None) -> Any:
    """The engine; None without a GPU that can load it."""
    try:
        open_device(device)
    except BackendError:
        # Without a driver some versions of TensorRT crash the process when asked.
        return None
    return trt.Runtime(logger).deserialize_cuda_engine(content)
