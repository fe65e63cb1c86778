"""A TensorRT that parses and builds nothing, for tests of what is done around it."""

from __future__ import annotations

import hashlib
import sys
from types import SimpleNamespace as Plain
from typing import Any
from unittest.mock import MagicMock

import pytest


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Put a fake in the place of the module `name` and return it.

    Its networks have three layers, one of them a plugin's. `builder` and `parser` are the only ones
    of their kinds; engines cannot be loaded, as without a GPU.
    """
    kinds = {"CONVOLUTION": "HALF", "PLUGIN_V3": "HALF", "CAST": "FLOAT"}
    layers = [
        Plain(
            type=f"LayerType.{kind}",
            num_outputs=1,
            get_output=lambda i, dtype=dtype: Plain(dtype=f"DataType.{dtype}"),
        )
        for kind, dtype in kinds.items()
    ]

    def build(network: Any, config: Any) -> bytes:
        return b"engine of " + hashlib.sha256(module.parser.parse.call_args.args[0]).digest()

    module = MagicMock(__version__="1.2.3", __spec__=None)
    module.ILogger = type("ILogger", (), {"Severity": Plain(ERROR=1)})
    module.builder, module.parser = module.Builder.return_value, module.OnnxParser.return_value
    module.parser.parse.return_value = True
    module.builder.create_network.return_value = Plain(num_layers=3, get_layer=layers.__getitem__)
    module.builder.build_serialized_network.side_effect = build
    module.Runtime.return_value.deserialize_cuda_engine.return_value = None
    module.NetworkDefinitionCreationFlag = Plain(STRONGLY_TYPED=1)
    module.BuilderFlag = Plain(TF32=7)
    names = ["NONE", "CURRENT", "SM75", "SM80", "SM120"]
    module.ComputeCapability = Plain(__members__={name: name for name in names})
    monkeypatch.setitem(sys.modules, name, module)
    return module
