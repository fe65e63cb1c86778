"""The TensorRT packages that build engines, and the plugin that engines may call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from ..support.errors import BackendError
from ..support.plain_file import sha256_file
from ..support.process import import_or_explain

RTX_OLDEST = 80  # TensorRT-RTX supports Ampere and later, but not 9.0 (H100)

# The builder's options beyond TensorRT's own defaults, in words. Change it together with
# `export.engine`: engines that were built before are stale then.
RECIPE = "strongly typed, TF32 off"

# Where CMakeLists.txt puts what it compiles.
LIBRARIES = Path(__file__).parents[1] / "lib"


class Flavour(NamedTuple):
    """A TensorRT: where it is imported from, and how to get it."""

    name: str
    module: str
    cure: str


# The one place that names the packages.
FLAVOURS = {
    "rtx": Flavour("rtx", "tensorrt_rtx_bindings", 'pip install "sonomime[rtx]"'),
    "tensorrt": Flavour(
        "tensorrt", "tensorrt", "pip install tensorrt, or build with --flavour rtx"
    ),
}


def load_flavour(name: str) -> tuple[Flavour, Any]:
    """A flavour and its module.

    Raises:
        BackendError: the package is absent or cannot be loaded; the hint says how to install it.
    """
    flavour = FLAVOURS[name]
    return flavour, import_or_explain(flavour.module, flavour.cure)


def gpu_target(name: str, major: int, minor: int) -> str:
    """The target of an engine of full TensorRT: ("NVIDIA L4", 8, 9) -> "NVIDIA L4 8.9"."""
    return f"{name} {major}.{minor}"


def rtx_target(major: int, minor: int) -> str:
    """TensorRT-RTX's name of a compute capability: (8, 9) -> SM89."""
    return f"SM{major}{minor}"


def rtx_targets(trt: Any) -> list[str]:
    """All compute capabilities that this TensorRT-RTX builds portable engines for."""
    names = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    return [name for name in names if int(name[2:]) >= RTX_OLDEST]


def check_served(flavour: str, trt: Any, targets: list[str]) -> None:
    """Refuse GPUs that no engine of a flavour can be built for: building would not help.

    Raises:
        BackendError: TensorRT-RTX does not support one of these compute capabilities.
    """
    served = rtx_targets(trt) if flavour == "rtx" else targets
    if missing := [target for target in targets if target not in served]:
        raise BackendError(
            f"TensorRT-RTX {trt.__version__} builds no portable engines for {', '.join(missing)}, "
            f"only for {', '.join(served)}",
            "take another backend: tensorrt or ort-cuda",
        )


def plugin_path() -> Path | None:
    """The plugin: what SONOMIME_PLUGIN names, else the library beside the package, else None.

    Raises:
        BackendError: SONOMIME_PLUGIN names no file.
    """
    if named := os.environ.get("SONOMIME_PLUGIN", ""):
        if not Path(named).is_file():
            raise BackendError(
                f"SONOMIME_PLUGIN names {named}, which is not a file",
                "name the plugin's .so, or unset it",
            )
        return Path(named).absolute()  # the loader would not look for a bare name here
    beside = LIBRARIES / "libsonomime_plugin.so"
    return beside if beside.is_file() else None


def plugin_digest(flavour: str) -> str:
    """SHA-256 of the plugin that engines of a flavour call; empty when they call none."""
    path = plugin_path() if flavour == "tensorrt" else None
    return sha256_file(path) if path else ""


_loaded: set[Path] = set()


def load_plugin(trt: Any) -> Path | None:
    """Register the plugin with full TensorRT, once per process; None where there is none.

    Never call it with TensorRT-RTX, which has no plugins and aborts the process.

    Raises:
        BackendError: the library does not load, as one of another ABI would not.
    """
    path = plugin_path()
    if path is None or path in _loaded:
        return path
    reason = "it gave no reason"
    try:
        handle = trt.get_plugin_registry().load_library(str(path))
    except (RuntimeError, OSError, TypeError) as error:
        handle, reason = None, str(error)
    if handle is None:
        raise BackendError(
            f"TensorRT {trt.__version__} cannot load the plugin {path}: {reason}",
            "compile it against this TensorRT's headers (docs/gpu.md), or do without it: remove it",
        )
    _loaded.add(path)
    return path
