"""Load the plugin into a TensorRT, list its creators, make one plugin of each.

    python tests/plugin_creators.py runtime/lib/libsonomime_plugin.so

Any of TensorRT's Python packages will do (`tensorrt`, or a lean runtime: `tensorrt-lean-cu13-libs`
and `-bindings`), and numpy; no GPU is needed.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

NAMES = ("WarpOcclude", "SparseMotion", "ComposeMotion")
VALUES = {"half_pixel": 1.0, "variance": 0.01}
MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")


def tensorrt() -> Any:
    for name in MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SystemExit(f"error: none of {', '.join(MODULES)} is installed")


def main(library: str) -> None:
    trt = tensorrt()
    print(f"{trt.__name__} {trt.__version__}")
    registry = trt.get_plugin_registry()
    if registry.load_library(library) is None:
        raise SystemExit(f"error: {library} was not loaded")
    ours = [creator for creator in registry.all_creators if creator.plugin_namespace == "sonomime"]
    for creator in ours:
        fields = [field.name for field in creator.field_names]
        values = [
            trt.PluginField(name, np.array([VALUES[name]], np.float32), trt.PluginFieldType.FLOAT32)
            for name in fields
        ]
        plugin = creator.create_plugin(
            "node", trt.PluginFieldCollection(values), trt.TensorRTPhase.RUNTIME
        )
        if plugin is None:
            raise SystemExit(f"error: {creator.name} makes no plugin")
        kinds = [getattr(trt.PluginCapabilityType, kind) for kind in ("CORE", "BUILD", "RUNTIME")]
        offered = [plugin.get_capability_interface(kind).interface_info.kind for kind in kinds]
        print(
            f"{creator.plugin_namespace}::{creator.name} version {creator.plugin_version}, "
            f"fields {', '.join(fields)}; makes {', '.join(offered)}"
        )
    if sorted(creator.name for creator in ours) != sorted(NAMES):
        raise SystemExit(f"error: the creators are not {', '.join(NAMES)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
