"""A TensorRT that parses and builds nothing, for tests of what is done around it."""

from __future__ import annotations

import hashlib
import sys
import types
from typing import Any, ClassVar

import pytest


class FakeNetwork:
    """Three layers, one of them a plugin's."""

    def __init__(self) -> None:
        self.onnx = b""
        kinds = {"CONVOLUTION": "HALF", "PLUGIN_V3": "HALF", "CAST": "FLOAT"}
        self.layers: list[Any] = [
            types.SimpleNamespace(
                type=f"LayerType.{kind}",
                num_outputs=1,
                get_output=lambda i, dtype=dtype: types.SimpleNamespace(dtype=f"DataType.{dtype}"),
            )
            for kind, dtype in kinds.items()
        ]
        self.num_layers, self.get_layer = len(self.layers), self.layers.__getitem__


class FakeParser:
    errors: ClassVar[list[str]] = []

    def __init__(self, network: FakeNetwork, logger: Any) -> None:
        self.network = network

    def parse(self, onnx: bytes) -> bool:
        self.network.onnx = onnx
        return not self.errors

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> Any:
        return types.SimpleNamespace(desc=lambda: self.errors[index], node_operator=lambda: "Foo")


class FakeBuilder:
    refuses = False
    builds = 0

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> FakeNetwork:
        assert flags == 1 << 1  # strongly typed
        return FakeNetwork()

    def create_builder_config(self) -> Any:
        return types.SimpleNamespace(
            clear_flag=lambda flag: None, set_compute_capability=lambda value, index: None
        )

    def build_serialized_network(self, network: FakeNetwork, config: Any) -> bytes | None:
        FakeBuilder.builds += 1
        if self.refuses:
            self.logger.log(1, "no kernel for this layer")
            return None
        return b"engine of " + hashlib.sha256(network.onnx).digest()


class FakeRegistry:
    def __init__(self) -> None:
        self.loads = True
        self.libraries: list[str] = []

    def load_library(self, path: str) -> object | None:
        self.libraries.append(path)
        return object() if self.loads else None


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """Put a fake in the place of the module `name` and return it."""

    class FakeRuntime:
        engine: ClassVar[Any] = None  # as without a GPU

        def __init__(self, logger: Any) -> None:
            pass

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            return self.engine

    module: Any = types.ModuleType(name)
    module.__version__ = "1.2.3"
    module.ILogger = type("ILogger", (), {"Severity": types.SimpleNamespace(ERROR=1)})
    module.Builder, module.OnnxParser = FakeBuilder, FakeParser
    module.Runtime = FakeRuntime
    module.NetworkDefinitionCreationFlag = types.SimpleNamespace(STRONGLY_TYPED=1)
    module.BuilderFlag = types.SimpleNamespace(TF32=7)
    names = ["NONE", "CURRENT", "SM75", "SM80", "SM120"]
    module.ComputeCapability = types.SimpleNamespace(__members__={name: name for name in names})
    module.registry = FakeRegistry()
    module.get_plugin_registry = lambda: module.registry
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(FakeParser, "errors", [])
    monkeypatch.setattr(FakeBuilder, "refuses", False)
    monkeypatch.setattr(FakeBuilder, "builds", 0)
    return module
