"""A machine with GPUs, TensorRT and ONNX Runtime's CUDA provider. What runs there is played by ONNX
Runtime on the CPU, over the fake GPU's memory."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from weakref import WeakValueDictionary

import fake_cuda
import numpy as np
import onnxruntime as ort
import pytest
from fake_cuda import Refused

from sonomime.runtime.backends import ort_cuda, tensorrt
from sonomime.runtime.backends.device_backend import alone
from sonomime.runtime.backends.ort import session_options
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.engines.tensorrt_packages import FLAVOURS
from sonomime.runtime.support.errors import BackendError

TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16}
STAGES = ["keypoints", "transfer", "motion", "generator"]
FRAME = ["upload", "record", *(step for stage in STAGES for step in (stage, "record")), "copy"]
"""What is carried out for a frame of the toy bundle, before it comes down."""
OTHER = {"shape": [1, 32, 32, 2], "dtype": "HALF", "format": "HWC8"}  # than the manifest's
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def enum(name: str) -> Any:
    """A member that has a name, as pybind's have."""
    return types.SimpleNamespace(name=name)


class Machine:
    """`wrong` says what goes wrong: at which stage, or with which tensor. `alive` counts what the
    libraries hold of stages, `violations` has what outlived its memory."""

    def __init__(self, cuda: fake_cuda.FakeCuda) -> None:
        self.cuda = cuda
        self.wrong: dict[str, str] = {}
        self.alive = 0
        self.violations: list[str] = []
        self.trt, self.ort = FakeTrt(self), FakeOrt(self)

    def fails(self, what: str, name: str) -> bool:
        return self.wrong.get(what) == name

    def forget(self) -> None:
        """After a context was lost: it took everything with it, and no destructor asked it to."""
        gc.collect()
        assert self.alive, "destroyed upon a GPU that refuses"
        self.alive = self.trt.engines = 0
        self.cuda.forget()

    def gone(self) -> None:
        """Assert that everything was given back, in an order that is safe."""
        gc.collect()
        assert (self.cuda.leaks(), self.violations) == ([], [])
        assert (self.alive, self.trt.engines, self.cuda.mode) == (0, 0, "global")


class Bound:
    """A stage, played upon addresses that must outlive it."""

    def __init__(self, machine: Machine, session: Any) -> None:
        self.machine, self.session = machine, session
        self.stage = session.get_modelmeta().graph_name
        self.addresses: dict[str, int] = {}
        machine.alive += 1

    def bind(self, name: str, address: int) -> None:
        self.machine.cuda.block(address)
        self.addresses[name] = address

    def run(self) -> None:
        binding = self.session.io_binding()
        for nodes, bind in (
            (self.session.get_inputs(), binding.bind_input),
            (self.session.get_outputs(), binding.bind_output),
        ):
            for node in nodes:
                address = self.addresses[node.name]
                self.machine.cuda.block(address)  # it is still there
                bind(node.name, "cpu", 0, NUMPY[TYPES[node.type]], node.shape, address)
        self.session.run_with_iobinding(binding)

    def __del__(self) -> None:
        self.machine.alive -= 1
        if not all(map(self.machine.cuda.holds, self.addresses.values())):
            # What a destructor raises is lost, so it is written down.
            self.machine.violations.append(f"{self.stage} outlived its memory")


class FakeContext(Bound):
    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine.machine, engine.session)
        self.engine = engine

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.machine.trt.addressed.append(name)
        assert address % 256 == 0
        self.bind(name, address)
        return not self.machine.fails("address", name)

    def execute_async_v3(self, stream: int) -> bool:
        cuda = self.machine.cuda
        cuda.called("execute", stream)
        assert self.addresses.keys() == self.engine.tensors.keys(), "a tensor has no address"
        if self.machine.fails("execute", self.stage) or (
            cuda.capturing() and self.machine.fails("capture", self.stage)
        ):
            self.engine.logger.log(1, "the kernel refused")
            return False
        cuda.enqueue(stream, self.stage, self.run)
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.machine.cuda.live
        return not self.machine.fails("not yet", self.stage)


class FakeEngine:
    def __init__(self, machine: Machine, content: bytes, logger: Any) -> None:
        self.machine, self.logger = machine, logger
        self.session = ort.InferenceSession(content, session_options(1), providers=[CPU])
        self.stage = self.session.get_modelmeta().graph_name
        modes = FakeTrt.TensorIOMode
        nodes = [(modes.INPUT, node) for node in self.session.get_inputs()]
        nodes += [(modes.OUTPUT, node) for node in self.session.get_outputs()]
        tensors: dict[str, dict[str, Any]] = {}
        for mode, node in nodes:
            facts = {"dtype": TYPES[node.type], "shape": node.shape, "format": "LINEAR"}
            other = {key: OTHER[key] for key in OTHER if machine.fails(key, node.name)}
            tensors[node.name] = {"mode": mode, **facts, **other}
        self.num_io_tensors, self.tensors = len(nodes), tensors
        self.get_tensor_name = list(tensors).__getitem__
        self.get_tensor_mode = lambda name: tensors[name]["mode"]
        self.get_tensor_dtype = lambda name: enum(tensors[name]["dtype"])
        self.get_tensor_format = lambda name: enum(tensors[name]["format"])
        self.get_tensor_shape = lambda name: tensors[name]["shape"]
        machine.trt.engines += 1

    def create_execution_context(self) -> FakeContext | None:
        try:
            self.machine.cuda.called("context")
            if self.machine.fails("room", self.stage):
                raise Refused("requested 1 GiB")
        except Refused as refused:
            self.logger.log(1, f"out of memory: {refused}")
            return None
        return FakeContext(self)

    def __del__(self) -> None:
        self.machine.trt.engines -= 1


class FakeTrt:
    """Stands for the module tensorrt; `engines` are how many live."""

    __version__ = "10.9.8"
    ComputeCapability = types.SimpleNamespace(__members__={"SM80": 80, "SM88": 88, "SM89": 89})
    TensorIOMode = types.SimpleNamespace(INPUT=enum("INPUT"), OUTPUT=enum("OUTPUT"))

    class ILogger:
        Severity = types.SimpleNamespace(ERROR=1)

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.addressed: list[str] = []
        self.not_built: set[str] = set()  # flavours
        self.plugins = self.deserialised = self.engines = 0
        self.targets: list[list[str]] = []

    def Runtime(self, logger: Any) -> Any:
        def deserialize(content: bytes) -> FakeEngine | None:
            self.deserialised += 1
            engine = FakeEngine(self.machine, content, logger)
            if self.machine.fails("load", engine.stage):
                logger.log(1, "Serialization assertion failed: version tag does not match")
                return None
            return engine

        return types.SimpleNamespace(deserialize_cuda_engine=deserialize)

    def load_engines(
        self, bundle: Bundle, flavour: str, trt: Any, targets: list[str], device: int = 0
    ) -> dict[str, bytes]:
        """As engine_store's: here, every bundle is built."""
        if flavour in self.not_built:
            raise BackendError(f"no {flavour} engines are built", "run sonomime build")
        self.targets.append(targets)
        return {stage.name: bundle.read(stage.file) for stage in bundle.manifest.stages}

    def load_plugin(self, trt: Any) -> None:
        self.plugins += 1


class FakeOrt:
    """Stands for the module onnxruntime in ort_cuda.py; its sessions run when the stream is."""

    __version__ = "1.99"

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.InferenceSession = functools.partial(FakeSession, machine)
        self.spoiled: list[str] = []  # captures of these stages that another thread will break
        self.captures: list[str] = []
        self.opened: list[dict[str, str]] = []
        self.preloads = 0

    def get_available_providers(self) -> list[str]:
        return [CPU] if self.machine.fails("providers", "") else [CUDA, CPU]

    def set_default_logger_severity(self, level: int) -> None:
        assert level == 3

    def preload_dlls(self) -> None:
        self.preloads += 1
        print("Failed to load libcudnn.so.9")

    def RunOptions(self) -> Any:
        entries: dict[str, str] = {}
        return types.SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)


class FakeSession:
    def __init__(
        self, machine: Machine, content: bytes, options: Any, providers: Any, enable_fallback: int
    ) -> None:
        assert enable_fallback == 0
        (name, facts), fallback = providers
        assert (name, fallback) == (CUDA, CPU)
        self.machine = machine
        self.real = ort.InferenceSession(content, options, providers=[CPU])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        self.stage = self.real.get_modelmeta().graph_name
        self.graph = facts["enable_cuda_graph"] == "1"
        self.stream, self.captured_in = int(facts["user_compute_stream"]), set[Any]()
        machine.ort.opened.append({**facts, "stage": self.stage})
        if self.graph and machine.fails("graph", self.stage):
            raise RuntimeError("not all nodes have been partitioned to the CUDAExecutionProvider")
        if machine.fails("open", self.stage):
            raise RuntimeError("CUDA failure 2: out of memory\nand then pages")

    def get_providers(self) -> list[str]:
        return [CPU] if self.machine.fails("loads", "") else [CUDA, CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        stream = 0 if self.machine.fails("options", self.stage) else self.stream
        return {name: {"user_compute_stream": str(stream)} for name in self.get_providers()}

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self.machine, self.real)

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        cuda, module, entries = self.machine.cuda, self.machine.ort, dict(options.entries)
        assert entries.pop("disable_synchronize_execution_providers") == "1"
        assert entries in ({}, {"gpu_graph_id": "-1"})
        assert not cuda.capturing(), "its sessions may allocate"
        if self.machine.fails("execute", self.stage):
            raise RuntimeError("CUDA failure 700: an illegal memory access\nand then pages")
        here = threading.current_thread()
        if self.graph and not entries and here not in self.captured_in:
            with ThreadPoolExecutor(1) as other:
                assert not other.submit(alone.acquire, blocking=False).result(), "not alone"
            module.captures.append(self.stage)
            if self.stage in module.spoiled:
                module.spoiled.remove(self.stage)
                cuda.live[self.stream].value.captured = []  # which it leaves open
                raise RuntimeError("CUDA failure 901: previous error during capture\nand pages")
            self.captured_in.add(here)
        cuda.called("execute", self.stream)
        cuda.enqueue(self.stream, self.stage, binding.run)


class FakeBinding(Bound):
    def bind_input(
        self, name: str, kind: str, index: int, dtype: Any, shape: Any, address: int
    ) -> None:
        assert (kind, index) == ("cuda", self.machine.cuda.current)
        self.bind(name, address)

    bind_output = bind_input


def install(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Put all of it where the backends look for it."""
    machine = Machine(fake_cuda.FakeCuda())
    for name in ("cuda.bindings.runtime", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, machine.cuda)
    trt = machine.trt
    monkeypatch.setattr(tensorrt, "_engines", WeakValueDictionary())
    monkeypatch.setattr(tensorrt, "load_flavour", lambda name: (FLAVOURS[name], trt))
    monkeypatch.setattr(tensorrt, "load_engines", trt.load_engines)
    monkeypatch.setattr(tensorrt, "load_plugin", trt.load_plugin)
    monkeypatch.setattr(ort_cuda, "ort", machine.ort)
    ort_cuda.preload.cache_clear()
    return machine
