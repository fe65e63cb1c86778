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


class FakeOrt:
    """Stands for the module onnxruntime in ort_cuda.py; its sessions run when the stream is."""

    __version__ = "1.99"

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self.loads = True
        self.refuses_graphs: set[str] = set()
        self.refuses = self.fails = self.forgets = ""
        self.spoiled: list[str] = []  # captures of these stages that another thread will break
        self.captures: list[str] = []
        self.opened: list[dict[str, str]] = []
        self.alive = self.preloads = 0
        self.violations: list[str] = []
        self.severity = None

    def open_device(self, index: int | None = None) -> FakeDevice:
        """As cuda's: the GPU is whichever is asked for."""
        self.device.index = index or 0
        return self.device

    def set_default_logger_severity(self, level: int) -> None:
        self.severity = level

    def preload_dlls(self) -> None:
        self.preloads += 1
        print("Failed to load libcudnn.so.9")

    def get_available_providers(self) -> list[str]:
        return self.providers

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
        self.real = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        name, facts = providers[0]
        stage = self.real.get_modelmeta().graph_name
        assert name == "CUDAExecutionProvider" and providers[1] == "CPUExecutionProvider"
        module.opened.append({**facts, "stage": stage})
        if facts["enable_cuda_graph"] == "1" and stage in module.refuses_graphs:
            raise RuntimeError("not all nodes have been partitioned to the CUDAExecutionProvider")
        if stage == module.refuses:
            raise RuntimeError("CUDA failure 2: out of memory\nand then pages")
        self.stage, self.stream = stage, int(facts["user_compute_stream"])
        self.graph, self.captured_in = facts["enable_cuda_graph"] == "1", set[Any]()
        module.alive += 1

    def __del__(self) -> None:
        if hasattr(self, "stream"):
            self.module.alive -= 1

    def get_providers(self) -> list[str]:
        return self.module.providers if self.module.loads else ["CPUExecutionProvider"]

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        stream = 0 if self.stage == self.module.forgets else self.stream
        return {"CUDAExecutionProvider": {"user_compute_stream": str(stream)}}

    def get_inputs(self) -> Any:
        return self.real.get_inputs()

    def get_outputs(self) -> Any:
        return self.real.get_outputs()

    def io_binding(self) -> FakeBinding:
        return FakeBinding(self)

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        device = self.module.device
        assert options.entries["disable_synchronize_execution_providers"] == "1"
        plain = options.entries.get("gpu_graph_id") == "-1"
        assert plain or set(options.entries) == {"disable_synchronize_execution_providers"}
        assert not device.capturing(), "its sessions may allocate"
        if self.module.fails == self.stage:
            raise RuntimeError("CUDA failure 700: an illegal memory access\nand then pages")
        here = threading.current_thread()
        if self.graph and not plain and here not in self.captured_in:
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
        blocks = self.device.blocks.items()
        for at in self.addresses:
            if not any(start <= at < start + block.nbytes for start, block in blocks):
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


def test_frames_are_those_of_the_cpu(fake: FakeOrt, toy_bundle: Path) -> None:
    results = []
    for name in ("ort-cpu", "ort-cuda"):
        with Animator.open(toy_bundle, name, smooth=True, scale="hull", threads=1) as animator:
            animator.set_source(blob(64, 0.1, 0))
            made = [animator.animate(blob(64, 0.1 * i, 0.1)) for i in range(4)]
            animator.reset()
            results.append([*made, animator.animate(blob(80, 0, 0)), animator.read("state")])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other) and one.any()


def test_landmarks_and_alignment_are_those_of_the_cpu(
    fake: FakeOrt, displacement_toy: Path
) -> None:
    results = []
    for name in ("ort-cpu", "ort-cuda"):
        bundle = Bundle.open(displacement_toy)
        session = Session(bundle.manifest, open_backend(name, bundle, threads=1))
        results.append(scene(session))
        session.close()
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert "landmarks" in fake.captures


def test_one_stream_graphs_of_its_own_and_one_synchronisation(
    fake: FakeOrt, toy_bundle: Path
) -> None:
    backend = open_backend("ort-cuda", Bundle.open(toy_bundle))
    (stream,) = fake.device.streams.keys() - {1}
    assert [each["stage"] for each in fake.opened] == [
        "source", "keypoints", "transfer", "motion", "generator",
    ]  # fmt: skip
    for each in fake.opened:
        assert each["user_compute_stream"] == str(stream) and each["device_id"] == "0"
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


def test_the_provider_gets_the_gpu_that_was_named(fake: FakeOrt, toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute", device=1) as animator:
        animator.set_source(blob(64, 0, 0))
        assert animator.animate(blob(64, 0.2, 0)).any()
    assert {each["device_id"] for each in fake.opened} == {"1"}


def test_the_libraries_of_nvidia_s_packages_are_looked_for_once_and_quietly(
    fake: FakeOrt, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        open_backend("ort-cuda", Bundle.open(toy_bundle)).close()
    assert fake.preloads == 1 and capsys.readouterr().out == ""


def test_a_stage_that_cannot_be_a_graph_runs_without(
    fake: FakeOrt, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING", "sonomime")
    fake.refuses_graphs = {"motion"}
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        found = animator.animate(blob(64, 0.2, 0))
        assert np.abs(found.astype(int) - blob(64, 0.2, 0)).max() <= 3
    graphs = [each["enable_cuda_graph"] for each in fake.opened if each["stage"] == "motion"]
    assert graphs == ["1", "0"]
    assert "stage 'motion' runs without a CUDA graph: not all nodes" in caplog.text


def test_a_provider_that_did_not_load_is_an_error_and_no_quiet_cpu(
    fake: FakeOrt, toy_bundle: Path
) -> None:
    fake.loads = False
    with pytest.raises(BackendError, match=r"did not load .* it would run on the CPU") as caught:
        Animator.open(toy_bundle, "ort-cuda")
    assert "onnxruntime-gpu[cuda,cudnn]" in caught.value.hint
    assert len(fake.opened) == 1


def test_stages_that_cannot_be_opened_or_fail(
    fake: FakeOrt, toy_bundle: Path, tmp_path: Path
) -> None:
    fake.refuses = "generator"
    with pytest.raises(BackendError, match="cannot open stage 'generator' on Fake GPU") as caught:
        Animator.open(toy_bundle, "ort-cuda")
    assert "out of memory" in caught.value.message and "pages" not in caught.value.message
    assert "free some" in caught.value.hint and "LD_LIBRARY_PATH" in caught.value.hint
    fake.refuses, fake.forgets = "", "motion"
    with pytest.raises(BackendError, match=r"stage 'motion' .* took none of the CUDA provider's"):
        Animator.open(toy_bundle, "ort-cuda")
    fake.forgets, fake.fails = "", "motion"
    with Animator.open(toy_bundle, "ort-cuda") as animator:
        animator.set_source(blob(64, 0, 0))
        with pytest.raises(BackendError, match="stage 'motion' failed in ONNX Runtime: CUDA fail"):
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
        found = animator.animate(blob(64, 0.2, 0))
        assert np.abs(found.astype(int) - blob(64, 0.2, 0)).max() <= 3
        assert fake.captures == ["source", "keypoints", "transfer", "motion", "generator"]
        fake.captures.clear()
        for expected in (["generator"], []):
            animator.animate(blob(64, 0, 0))
            assert fake.captures == expected
            fake.captures.clear()
        with ThreadPoolExecutor(1) as other:  # for which it captures anew
            other.submit(animator.animate, blob(64, 0, 0)).result()
        assert fake.captures == ["keypoints", "transfer", "motion", "generator"]
        fake.captures.clear()
        assert caplog.messages == []
        fake.spoiled = ["motion"] * 9
        with ThreadPoolExecutor(1) as other:
            for x in (0.1, 0.2, 0.3, 0.4):
                found = other.submit(animator.animate, blob(64, x, 0)).result()
                assert np.abs(found.astype(int) - blob(64, x, 0)).max() <= 3
        assert fake.captures.count("motion") == 2, "what fails twice runs plainly for good"
        assert [m for m in caplog.messages if "'motion' runs without a CUDA graph" in m]
        assert len(caplog.messages) == 1
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


def test_an_onnx_runtime_for_cpus_is_told_apart(fake: FakeOrt, toy_bundle: Path) -> None:
    fake.providers = ["CPUExecutionProvider"]
    with pytest.raises(BackendError, match=r"ONNX Runtime \(1.99\) has no CUDA provider") as caught:
        Animator.open(toy_bundle, "ort-cuda")
    assert "share one module" in caught.value.hint


@pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="this one has CUDA"
)
def test_what_is_installed_here_says_what_is_missing(toy_bundle: Path) -> None:
    with pytest.raises(BackendError, match="has no CUDA provider") as caught:
        open_backend("ort-cuda", Bundle.open(toy_bundle))
    assert "sonomime[gpu]" in caught.value.hint and caught.value.exit_code == 4
