"""Load the plugin into a TensorRT, list its creators, make one plugin of each.

    python tests/plugin_creators.py runtime/lib/libsonomime_plugin.so

Any of TensorRT's Python packages will do (`tensorrt`, or a lean runtime), and numpy; no GPU.
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
        collection = trt.PluginFieldCollection(values)
        plugin = creator.create_plugin("node", collection, trt.TensorRTPhase.RUNTIME)
        for kind in ("CORE", "BUILD", "RUNTIME"):
            assert plugin.get_capability_interface(getattr(trt.PluginCapabilityType, kind))
        print(f"sonomime::{creator.name} version {creator.plugin_version}")
    assert sorted(creator.name for creator in ours) == sorted(NAMES)


if __name__ == "__main__":
    main(sys.argv[1])
