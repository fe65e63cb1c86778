"""Engine files of a toy bundle, for a TensorRT and a GPU that are only spoken of."""

from __future__ import annotations

import hashlib
import types
from dataclasses import replace
from typing import Any

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.engine_file import EngineManifest, Precision, StageEngine
from sonomime.runtime.engines.tensorrt_packages import RECIPE, gpu_target

RTX = types.SimpleNamespace(__members__=dict.fromkeys(("NONE", "SM75", "SM80", "SM89", "SM120")))
TRT: Any = types.SimpleNamespace(__version__="10.7.0", ComputeCapability=RTX)
GPU = gpu_target("NVIDIA L4", 8, 9)


def engines_of(bundle: Bundle) -> dict[str, bytes]:
    return {stage.name: b"engine of " + stage.name.encode() for stage in bundle.manifest.stages}


def manifest_of(bundle: Bundle, **changes: Any) -> EngineManifest:
    engines = engines_of(bundle)
    stages = tuple(
        StageEngine(
            stage.name, stage.sha256, len(engines[stage.name]),
            hashlib.sha256(engines[stage.name]).hexdigest(), 0.1, 3, (Precision("float32", 3),),
        )
        for stage in bundle.manifest.stages
    )  # fmt: skip
    made = EngineManifest(
        bundle.manifest.name,
        bundle.digest,
        "tensorrt",
        TRT.__version__,
        (GPU,),
        stages,
        recipe=RECIPE,
    )
    return replace(made, **changes)
