"""ONNX Runtime on a GPU, whose CUDA provider is played by its CPU one over a fake device."""

from __future__ import annotations

import gc
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from fake_device import FakeDevice
from toy_bundle import blob, copy_bundle, replace_file
from toy_displacement import scene

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend, ort_cuda
from sonomime.runtime.backends.device_backend import alone
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError, BundleError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
STAGES = ["source", "keypoints", "transfer", "motion", "generator"]


class FakeOrt:
    """Stands for the module onnxruntime in ort_cuda.py; its sessions run when the stream is."""

    __version__ = "1.99"

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.providers = [CUDA, CPU]
        self.get_available_providers = lambda: self.providers
        self.loads = True
        self.refuses_graph = self.refuses = self.fails = self.forgets = ""
        self.spoiled: list[str] = []  # captures of these stages that another thread will break
        self.captures: list[str] = []
        self.opened: list[dict[str, str]] = []
        self.alive = self.preloads = 0
        self.violations: list[str] = []

    def open_device(self, index: int | None = None) -> FakeDevice:
        """As cuda's: the GPU is whichever is asked for."""
        self.device.index = index or 0
        return self.device

    def set_default_logger_severity(self, level: int) -> None:
        assert level == 3

    def preload_dlls(self) -> None:
        self.preloads += 1
        print("Failed to load libcudnn.so.9")

    def RunOptions(self) -> Any:
        entries: dict[str, str] = {}
        return types.SimpleNamespace(entries=entries, add_run_config_entry=entries.__setitem__)

    def InferenceSession(
        self, content: bytes, options: Any, providers: Any, enable_fallback: int
    ) -> FakeSession:
        assert enable_fallback == 0
        return FakeSession(self, content, options, providers)


class FakeSession:
    def __init__(self, module: FakeOrt, content: bytes, options: Any, providers: Any) -> None:
        self.module = module
        self.real = ort.InferenceSession(content, options, providers=[CPU])
        self.get_inputs, self.get_outputs = self.real.get_inputs, self.real.get_outputs
        (name, facts), fallback = providers
        assert (name, fallback) == (CUDA, CPU)
        self.stage, self.graph = self.real.get_modelmeta().graph_name, facts["enable_cuda_graph"]
        module.opened.append({**facts, "stage": self.stage})
        if self.graph == "1" and self.stage == module.refuses_graph:
            raise RuntimeError("not all nodes have been partitioned to the CUDAExecutionProvider")
        if self.stage == module.refuses:
            raise RuntimeError("CUDA failure 2: out of memory\nand then pages")
        self.stream, self.captured_in = int(facts["user_compute_stream"]), set[Any]()
        module.alive += 1

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.module.alive -= 1

    def get_providers(self) -> list[str]:
        return self.module.providers if self.module.loads else [CPU]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        stream = 0 if self.stage == self.module.forgets else self.stream
        return {CUDA: {"user_compute_stream": str(stream)}}

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self)

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        device, entries = self.module.device, dict(options.entries)
        assert entries.pop("disable_synchronize_execution_providers") == "1"
        assert entries in ({}, {"gpu_graph_id": "-1"})
        assert not device.capturing(), "its sessions may allocate"
        if self.module.fails == self.stage:
            raise RuntimeError("CUDA failure 700: an illegal memory access\nand then pages")
        here = threading.current_thread()
        if self.graph == "1" and not entries and here not in self.captured_in:
            with ThreadPoolExecutor(1) as other:
                assert not other.submit(alone.acquire, blocking=False).result(), "not alone"
            self.module.captures.append(self.stage)
            if self.stage in self.module.spoiled:
                self.module.spoiled.remove(self.stage)
                device.streams[self.stream].captured = []  # which it leaves open
                raise RuntimeError("CUDA failure 901: previous error during capture\nand pages")
            self.captured_in.add(here)
        device.called("execute")
        device.enqueue(self.stream, self.stage, lambda: self.real.run_with_iobinding(binding.real))


class FakeBinding:
    def __init__(self, session: FakeSession) -> None:
        self.module, self.device = session.module, session.module.device
        self.addresses: list[int] = []
        self.real = session.real.io_binding()

    def bind_input(self, *arguments: Any) -> None:
        self.real.bind_input(*self._on_cpu(*arguments))

    def bind_output(self, *arguments: Any) -> None:
        self.real.bind_output(*self._on_cpu(*arguments))

    def __del__(self) -> None:
        if not all(map(self.device.holds, self.addresses)):
            # What a destructor raises is lost, so it is written down.
            self.module.violations.append("a binding outlived its memory")

    def _on_cpu(self, name: str, kind: str, index: int, dtype: Any, shape: Any, at: int) -> Any:
        assert (kind, index) == ("cuda", self.device.index)
        self.device.block(at)
        self.addresses.append(at)
        return name, "cpu", 0, dtype, shape, at


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOrt]:
    module = FakeOrt(FakeDevice())
    monkeypatch.setattr(ort_cuda, "ort", module)
    monkeypatch.setattr(ort_cuda, "open_device", module.open_device)
    ort_cuda.preload.cache_clear()
    yield module
    gc.collect()
    assert module.device.leaks() == [] and module.alive == 0 and module.violations == []


def test_frames_are_those_of_the_cpu(
    fake: FakeOrt, toy_bundle: Path, displacement_toy: Path
) -> None:
    results: list[list[Any]] = []
    for name in ("ort-cpu", "ort-cuda"):
        with Animator.open(toy_bundle, name, smooth=True, scale="hull", threads=1) as animator:
            animator.set_source(blob(64, 0.1, 0))
            made = [animator.animate(blob(64, 0.1 * i, 0.1)) for i in range(4)]
            animator.reset()
            made += [animator.animate(blob(80, 0, 0)), animator.read("state")]
        bundle = Bundle.open(displacement_toy)  # with landmarks and an alignment
        session = Session(bundle.manifest, open_backend(name, bundle, threads=1))
        results.append([*made, *scene(session)])
        session.close()
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert results[0][0].any() and "landmarks" in fake.captures


def test_one_stream_graphs_of_its_own_and_one_synchronisation(
    fake: FakeOrt, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        open_backend("ort-cuda", Bundle.open(toy_bundle)).close()
    assert fake.preloads == 1 and capsys.readouterr().out == "", "once, and quietly"
    fake.opened.clear()
    backend = open_backend("ort-cuda", Bundle.open(toy_bundle), device=1)
    (stream,) = fake.device.streams.keys() - {1}
    assert [each["stage"] for each in fake.opened] == STAGES
    for each in fake.opened:
        assert each["user_compute_stream"] == str(stream) and each["device_id"] == "1"
        assert each["enable_cuda_graph"] == "1" and each["use_tf32"] == "0"
    assert backend.name == "ort-cuda" and "Fake GPU (sm_89), ONNX Runtime 1.99" in backend.device
    for _ in range(3):
        before = len(fake.device.calls)
        backend.run_frame()
        asked = fake.device.calls[before:]
        assert asked.count("execute") == 4 and asked.count("synchronise") == 1
        assert "begin_capture" not in asked
        assert all(seconds == pytest.approx(2e-3) for seconds in backend.seconds.values())
    backend.close()


def follows(animator: Animator, x: float) -> bool:
    found = animator.animate(blob(64, x, 0))
    return bool(np.abs(found.astype(int) - blob(64, x, 0)).max() <= 3)


def test_a_stage_that_cannot_be_a_graph_runs_without(
    fake: FakeOrt, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.refuses_graph = "motion"
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        assert follows(animator, 0.2)
    graphs = [each["enable_cuda_graph"] for each in fake.opened if each["stage"] == "motion"]
    assert graphs == ["1", "0"] and "'motion'" in caplog.text


@pytest.mark.parametrize(
    ("what", "value", "words", "hint"),
    [
        ("loads", False, "on the CPU", "onnxruntime-gpu[cuda,cudnn]"),
        ("providers", [CPU], "no CUDA provider", "sonomime[gpu]"),
        ("refuses", "generator", "'generator'.*out of memory$", "LD_LIBRARY_PATH"),
        ("forgets", "motion", "'motion'", "LD_LIBRARY_PATH"),
    ],
)
def test_what_cannot_be_opened_is_an_error_and_not_a_quiet_cpu(
    fake: FakeOrt, toy_bundle: Path, what: str, value: Any, words: str, hint: str
) -> None:
    setattr(fake, what, value)
    with pytest.raises(BackendError, match=words) as caught:
        Animator.open(toy_bundle, "ort-cuda")
    assert hint in caught.value.hint and caught.value.exit_code == 4


def test_stages_that_fail_or_differ(fake: FakeOrt, toy_bundle: Path, tmp_path: Path) -> None:
    fake.fails = "motion"
    with Animator.open(toy_bundle, "ort-cuda") as animator:
        animator.set_source(blob(64, 0, 0))
        with pytest.raises(BackendError, match=r"'motion'.*CUDA failure 700.*access$"):
            animator.animate(blob(64, 0, 0))
        fake.fails = ""
        assert animator.animate(blob(64, 0, 0)).any()
    spoiled = copy_bundle(toy_bundle, tmp_path / "spoiled")
    replace_file(spoiled, "motion.onnx", (spoiled / "transfer.onnx").read_bytes())
    with pytest.raises(BundleError, match=r"motion\.onnx: input"):
        Animator.open(spoiled, "ort-cuda")


def test_its_captures_are_made_alone_and_later_if_another_thread_broke_them(
    fake: FakeOrt, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake.spoiled = ["source", "generator"]
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        assert follows(animator, 0.2) and fake.captures == STAGES
        for expected in (["generator"], []):
            fake.captures.clear()
            animator.animate(blob(64, 0, 0))
            assert fake.captures == expected
        with ThreadPoolExecutor(1) as other:  # for which it captures again
            other.submit(animator.animate, blob(64, 0, 0)).result()
        assert fake.captures == STAGES[1:] and caplog.messages == []
        fake.captures.clear()
        fake.spoiled = ["motion"] * 9
        with ThreadPoolExecutor(1) as other:
            for x in (0.1, 0.2, 0.3, 0.4):
                assert other.submit(follows, animator, x).result()
        assert fake.captures.count("motion") == 2, "what fails twice runs plainly for good"
        assert len(caplog.messages) == 1 and "'motion'" in caplog.messages[0]
        assert not fake.device.capturing(), "the end of the session would be the program's"


def test_dropped_sessions_go_at_once_but_never_upon_a_lost_gpu(
    fake: FakeOrt, toy_bundle: Path
) -> None:
    """Their destructors throw when CUDA refuses, which ends the process."""
    gc.collect()
    gc.disable()
    try:
        animator = Animator.open(toy_bundle, "ort-cuda")
        animator.set_source(blob(64, 0, 0))
        del animator
        assert fake.alive == 0 and fake.device.leaks() == [] and fake.violations == []
    finally:
        gc.enable()
    for frames in (0, 1):  # found out by a frame, or at the end
        animator = Animator.open(toy_bundle, "ort-cuda")
        animator.set_source(blob(64, 0, 0))
        fake.device.fail("synchronise", "cudaErrorIllegalAddress")
        if frames:
            with pytest.raises(BackendError, match="IllegalAddress"):
                animator.animate(blob(64, 0, 0))
        animator.close()
        del animator
        gc.collect()
        assert fake.alive == 5
        fake.alive = 0
        fake.device.forget()
