"""Build TensorRT engines of a bundle's stages, on the machine that is to run them.

The same code serves both flavours: strongly typed networks (precision is in the graph, so building
converts nothing), the ONNX parser, one serialized engine per stage, one file per bundle. The
runtime's `engine_store` decides where the files are kept and which of them are used.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

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


@dataclass(frozen=True)
class Build:
    """The engines of a bundle: their file, whether the cache had it, and what is in it."""

    path: Path
    cached: bool
    manifest: EngineManifest
    plugin: Path | None

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        said = {"path": str(self.path), "cached": self.cached}
        said["plugin"] = str(self.plugin) if self.plugin else None
        return said | plain(self.manifest)


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
    manifest = _cached(path, facts)
    cached = manifest is not None
    if manifest is None:
        # TensorRT builds for the calling thread's GPU.
        with open_device(device).current() if flavour == "tensorrt" else nullcontext():
            manifest = _built(bundle, kind, trt, facts, device)
    if out is not None:
        with atomic_path(out) as temporary, output_errors(out):
            shutil.copyfile(path, temporary)
        path = out
    return Build(path, cached, manifest, plugin)


def _cached(path: Path, facts: Facts) -> EngineManifest | None:
    """The cached engines, if the file is sound and this user built or trusts it."""
    try:
        found = read_engine_file(path)
    except BackendError:
        return None
    sound = is_trusted(found.sha256) and Facts.stated(found.manifest) == facts
    return found.manifest if sound and not path.is_symlink() else None


def _built(
    bundle: Bundle, kind: Flavour, trt: Any, facts: Facts, device: int | None
) -> EngineManifest:
    stages, engines = [], {}
    for stage in progress(list(bundle.manifest.stages), label=f"building {kind.name} engines"):
        onnx = read_stage(bundle, stage)
        targets = list(facts.targets)
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
    layers, precisions, plugin_layers = _layers(network)
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
    engine_layers, memory = _inspected(content, trt, logger, device)
    return content, StageEngine(
        name=name,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        seconds=round(perf_counter() - began, 3),
        layers=layers,
        precisions=precisions,
        plugin_layers=plugin_layers,
        engine_layers=engine_layers,
        device_memory_bytes=memory,
    )


# numpy's names; others keep TensorRT's.
_DTYPES = {"FLOAT": "float32", "HALF": "float16"}


def _layers(network: Any) -> tuple[int, tuple[Precision, ...], int]:
    """Layers of the parsed network, by the type of their first output; those of the plugin."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    kinds = [
        str(each.get_output(0).dtype).rpartition(".")[2] for each in layers if each.num_outputs
    ]
    counts = Counter(_DTYPES.get(kind, kind.lower()) for kind in kinds)
    plugins = sum("PLUGIN" in str(layer.type) for layer in layers)
    return len(layers), tuple(Precision(*item) for item in counts.most_common()), plugins


def _inspected(
    content: bytes, trt: Any, logger: Any, device: int | None
) -> tuple[int | None, int | None]:
    """Layers of the engine and bytes of its activations; None without a GPU that can load it."""
    try:
        open_device(device)
    except BackendError:
        # Without a driver some versions of TensorRT crash the process when asked.
        return None, None
    engine = trt.Runtime(logger).deserialize_cuda_engine(content)
    if engine is None:
        return None, None
    memory = getattr(engine, "device_memory_size_v2", None)
    return engine.num_layers, engine.device_memory_size if memory is None else memory
