"""A TensorRT whose engines are ONNX files, played by ONNX Runtime over a fake device's memory."""

from __future__ import annotations

import gc
import types
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
import pytest
from fake_device import FakeDevice

from sonomime.runtime.backends import cuda, tensorrt
from sonomime.runtime.backends.ort import session_options
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.tensorrt_packages import FLAVOURS
from sonomime.runtime.support.errors import BackendError

TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16}


class Enum:
    """A member that has a name, as pybind's have."""

    def __init__(self, name: str) -> None:
        self.name = name


class FakeContext:
    """On the GPU of its engine."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.device, self.trt = engine, engine.device, engine.trt
        self.addresses: dict[str, int] = {}
        self.trt.contexts += 1

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.trt.addressed.append(name)
        assert address % 256 == 0
        self.device.block(address)
        self.addresses[name] = address
        return name not in self.trt.refused_addresses

    def execute_async_v3(self, stream: int) -> bool:
        engine, trt = self.engine, self.trt
        assert self.addresses.keys() == engine.tensors.keys(), "a tensor has no address"
        self.device.called("execute")
        if engine.stage in trt.failing:
            engine.logger.log(1, "the kernel refused")
            return False
        if self.device.capturing() and engine.stage in trt.uncapturable:
            engine.logger.log(1, "operation not permitted when stream is capturing")
            return False
        self.device.enqueue(stream, engine.stage, self.run)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.device.streams
        return self.engine.stage not in self.trt.not_yet_capturable

    def run(self) -> None:
        binding = self.engine.session.io_binding()
        for name, (kind, shape, output) in self.engine.tensors.items():
            bind = binding.bind_output if output else binding.bind_input
            self.device.block(self.addresses[name])  # it is still there
            bind(name, "cpu", 0, NUMPY[kind], shape, self.addresses[name])
        self.engine.session.run_with_iobinding(binding)

    def __del__(self) -> None:
        self.trt.contexts -= 1
        if not all(map(self.device.holds, self.addresses.values())):
            # What a destructor raises is lost, so it is written down.
            self.trt.violations.append(f"the context of {self.engine.stage} outlived its memory")


class FakeEngine:
    """On the GPU that the calling thread worked on when it was deserialised."""

    def __init__(self, trt: FakeTrt, content: bytes, logger: Any) -> None:
        self.trt, self.logger = trt, logger
        self.device = trt.gpus[trt.device.thread.gpu]
        self.stage = trt.stages[content]
        self.session = ort.InferenceSession(
            content, session_options(1), providers=["CPUExecutionProvider"]
        )
        self.tensors = {
            node.name: (TYPES[node.type], tuple(node.shape), output)
            for output, nodes in enumerate((self.session.get_inputs(), self.session.get_outputs()))
            for node in nodes
        }
        self.num_io_tensors = len(self.tensors)
        trt.engines += 1

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> Any:
        return FakeTrt.TensorIOMode.OUTPUT if self.tensors[name][2] else FakeTrt.TensorIOMode.INPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return Enum(self._fact(name, "dtype", self.tensors[name][0]))

    def get_tensor_format(self, name: str) -> Any:
        return Enum(self._fact(name, "format", "LINEAR"))

    def get_tensor_shape(self, name: str) -> Any:
        return list(self._fact(name, "shape", self.tensors[name][1]))

    def _fact(self, tensor: str, fact: str, usual: Any) -> Any:
        return self.trt.altered.get(tensor, {}).get(fact, usual)

    def create_execution_context(self) -> FakeContext | None:
        self.device.called("context", in_capture=False)
        if self.stage in self.trt.without_room:
            self.logger.log(1, "out of memory: requested 1 GiB")
            return None
        return FakeContext(self)

    def __del__(self) -> None:
        self.trt.engines -= 1


class FakeTrt:
    """Stands for the module. `gpus` are the machine's, `device` is the first; `engines` and
    `contexts` are how many live."""

    __version__ = "10.9.8"
    ComputeCapability = types.SimpleNamespace(__members__={"SM80": 80, "SM89": 89})
    TensorIOMode = types.SimpleNamespace(INPUT=Enum("INPUT"), OUTPUT=Enum("OUTPUT"))

    class ILogger:
        Severity = types.SimpleNamespace(ERROR=1)

        def __init__(self) -> None:
            pass

    def __init__(self, device: FakeDevice) -> None:
        self.gpus = [device]
        self.stages: dict[bytes, str] = {}
        self.altered: dict[str, dict[str, Any]] = {}
        # Stages, or tensors, of which something fails.
        self.without_room, self.failing, self.uncapturable, self.not_yet_capturable = (
            set[str]() for _ in range(4)
        )
        self.refused_addresses, self.refused, self.missing = (set[str]() for _ in range(3))
        self.addressed: list[str] = []
        self.violations: list[str] = []
        self.plugins = self.deserialised = self.engines = self.contexts = 0
        self.targets: list[list[str]] = []

    def Runtime(self, logger: Any) -> Any:
        def deserialize(content: bytes) -> FakeEngine | None:
            self.deserialised += 1
            if self.stages[content] in self.refused:
                logger.log(1, "Serialization assertion failed: version tag does not match")
                return None
            return FakeEngine(self, content, logger)

        return types.SimpleNamespace(deserialize_cuda_engine=deserialize)

    @property
    def device(self) -> FakeDevice:
        return self.gpus[0]

    def add_gpu(self) -> FakeDevice:
        """Another GPU, of another kind."""
        gpu = FakeDevice(len(self.gpus), self.device.thread)
        gpu.name, gpu.capability = f"Fake GPU {gpu.index}", (8, gpu.index)
        self.gpus.append(gpu)
        return gpu

    def open_device(self, index: int | None = None) -> FakeDevice:
        """As cuda's."""
        if not 0 <= (index or 0) < len(self.gpus):
            raise BackendError(f"there is no GPU {index}: this process sees {len(self.gpus)}")
        return self.gpus[index or 0]

    def load_engines(
        self, bundle: Bundle, flavour: str, trt: Any, targets: list[str], device: int = 0
    ) -> dict[str, bytes]:
        """As engine_store's: here, every bundle is built."""
        self.targets.append(targets)
        contents = {stage.name: bundle.read(stage.file) for stage in bundle.manifest.stages}
        self.stages |= {content: name for name, content in contents.items()}
        return {name: content for name, content in contents.items() if name not in self.missing}

    def load_plugin(self, trt: Any) -> None:
        self.plugins += 1

    def forget(self) -> None:
        """After a context was lost: it took everything with it, and no destructor asked it to."""
        assert self.contexts, "destroyed upon a GPU that refuses"
        self.engines = self.contexts = 0
        self.device.forget()

    def gone(self) -> None:
        """Assert that everything was given back, in an order that is safe."""
        gc.collect()
        assert [gpu.leaks() for gpu in self.gpus] == [[]] * len(self.gpus)
        assert (self.engines, self.contexts, self.violations) == (0, 0, [])


def install(monkeypatch: pytest.MonkeyPatch, device: FakeDevice | None = None) -> FakeTrt:
    """Put a fake GPU and a fake TensorRT of both flavours where the backends look for them."""
    fake = FakeTrt(device or FakeDevice())
    monkeypatch.setattr(tensorrt, "_engines", WeakValueDictionary())
    monkeypatch.setattr(tensorrt, "load_flavour", lambda name: (FLAVOURS[name], fake))
    monkeypatch.setattr(tensorrt, "load_engines", fake.load_engines)
    monkeypatch.setattr(tensorrt, "load_plugin", fake.load_plugin)
    monkeypatch.setattr(tensorrt, "open_device", fake.open_device)
    monkeypatch.setattr(cuda, "open_device", fake.open_device)
    return fake
