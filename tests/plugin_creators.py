"""Load the plugin into a TensorRT, list its creators, make one plugin of each.

    python tests/plugin_creators.py runtime/lib/libsonomime_plugin.so

Any of TensorRT's Python packages will do (`tensorrt`, or a lean runtime: `tensorrt-lean-cu13-libs`
and `-bindings`), and numpy; no GPU is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

import numpy as np

NAMES = ("WarpOcclude", "SparseMotion", "ComposeMotion")
MODULES = ("tensorrt", "tensorrt_lean", "tensorrt_lean_bindings")


def main(library: str) -> None:
    trt = importlib.import_module(next(filter(importlib.util.find_spec, MODULES)))
    print(f"{trt.__name__} {trt.__version__}")
    registry = trt.get_plugin_registry()
    assert registry.load_library(library) is not None, f"{library} was not loaded"
    ours = [creator for creator in registry.all_creators if creator.plugin_namespace == "sonomime"]
    for creator in ours:
        values = [
            trt.PluginField(field.name, np.ones(1, np.float32), trt.PluginFieldType.FLOAT32)
            for field in creator.field_names
        ]
        fields = ", ".join(field.name for field in creator.field_names)
        collection = trt.PluginFieldCollection(values)
        plugin = creator.create_plugin("node", collection, trt.TensorRTPhase.RUNTIME)
        kinds = [getattr(trt.PluginCapabilityType, kind) for kind in ("CORE", "BUILD", "RUNTIME")]
        offered = [plugin.get_capability_interface(kind).interface_info.kind for kind in kinds]
        print(
            f"{creator.plugin_namespace}::{creator.name} version {creator.plugin_version}, "
            f"fields {fields}; makes {', '.join(offered)}"
        )
    assert sorted(creator.name for creator in ours) == sorted(NAMES)


if __name__ == "__main__":
    main(sys.argv[1])
