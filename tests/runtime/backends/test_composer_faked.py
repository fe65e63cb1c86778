"""Frames composed on a device that is played by the host, by the kernel compiled for it."""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
from pathlib import Path
from typing import Any

import host_kernels
import numpy as np
import pytest
from composed_cases import LEVELS, speckle
from fake_engines import FakeTrt
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends import device_composer
from sonomime.runtime.backends.base import ComposesFrames
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.support.errors import BackendError

STAGES = ["keypoints", "transfer", "motion", "generator"]
BEGIN = ["upload", "record", *(step for stage in STAGES for step in (stage, "record")), "copy"]
COMPOSED = [*BEGIN, "compose", "download"]


@pytest.fixture
def library() -> Path:
    return Path(host_kernels.built("fused").library._name)


class Kernel:
    """The function of the library, for memory of the fake GPU and in its stream's order."""

    def __init__(self, library: Path, trt: FakeTrt) -> None:
        self.trt, self.status = trt, 0
        self._function = getattr(ctypes.CDLL(str(library)), device_composer.FUNCTION)
        self._function.argtypes = device_composer.SIGNATURE

    def __call__(self, *arguments: int) -> int:
        *given, stream = arguments
        device = self.trt.device
        device.called("compose")
        for address in given[:9]:
            device.block(address)
        if not self.status:
            device.enqueue(stream, "compose", lambda: self._compose(given))
        return self.status

    def _compose(self, given: list[int]) -> None:
        for address in given[:9]:
            self.trt.device.block(address)  # it is still there
        assert self._function(*given, None) == 0


@pytest.fixture
def kernel(library: Path, trt: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(library, trt)
    monkeypatch.setattr(device_composer, "load_kernel", lambda: kernel)
    return kernel


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "layered", layers=True)


def begun_animator(folder: Path, frames: int = 3) -> Animator:
    """With a source, and captured frames of the model's own size."""
    animator = Animator.open(folder, "tensorrt")
    animator.set_source(speckle(100, 75))
    for i in range(frames):
        animator.animate(blob(64, 0.1 * i, 0))
    return animator


def scene(animator: Animator, channels: tuple[int, ...]) -> list[Any]:
    """Frames of two sources, at several sizes, with the layers at hand and after them."""
    made: list[Any] = []
    for picture in (speckle(100, 75, *channels), speckle(60, 80, seed=1)):
        height, width = picture.shape[:2]
        animator.set_source(picture)
        for size in ("source", (2 * width, 2 * height)):
            for i in range(3):
                frame = blob(64, -0.2 + 0.1 * i, 0.1)
                made.append(animator.animate(frame, size=size))  # type: ignore[arg-type]
            made.append(animator.compose())
        animator.animate(blob(64, 0.3, 0))
        made += [animator.compose(), animator.compose("model")]
    return made


@pytest.mark.parametrize(
    ("graph", "model", "channels"), [("1", 1, ()), ("0", 1, (3,)), ("0", 3, ()), ("1", 3, (3,))]
)
def test_frames_are_those_of_the_cpu(
    trt: FakeTrt, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str,
    model: int, channels: tuple[int, ...],
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=model, layers=True)
    with Animator.open(folder, "ort-cpu", threads=1) as animator:
        expected = scene(animator, channels)
    with Animator.open(folder, "tensorrt") as animator:
        found = scene(animator, channels)
    assert "compose" in trt.device.done and ("launch" in trt.device.calls) == (graph == "1")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and levels_apart(one, other) <= LEVELS


def test_a_composed_frame_is_one_launch_and_one_download(
    trt: FakeTrt, kernel: Kernel, layered: Path
) -> None:
    device = trt.device
    with begun_animator(layered) as animator:
        before = animator.animate(blob(64, 0, 0), size="source")  # takes it, and is captured

        def composed() -> None:
            animator.animate(blob(64, 0, 0), size="source")

        assert device.asked(composed) == ["launch", "synchronise"]
        assert device.carried_out(composed) == COMPOSED
        assert device.carried_out(animator.compose) == [], "it is there"
        plain = device.carried_out(lambda: animator.animate(blob(64, 0, 0)))
        assert plain == [*BEGIN, "download"], "what nobody asked for is not composed"
        assert device.carried_out(animator.compose) == ["compose", "download"]
        backend = animator.session.backend
        backend.write("gate", animator.read("gate") / 2)
        assert levels_apart(animator.compose(), before) > 20, "it is composed again"
        backend.run("motion")
        assert np.array_equal(animator.compose(), before)


def test_another_size_or_source_is_captured_again_and_takes_the_place(
    trt: FakeTrt, kernel: Kernel, layered: Path
) -> None:
    device = trt.device
    with begun_animator(layered) as animator:
        held: list[tuple[int, int, int]] = []
        for source, size in ((100, "source"), (100, (200, 150)), (60, "source"), (60, "model")):
            if source == 60:
                animator.set_source(speckle(60, 80))
            captures = device.calls.count("begin_capture")
            for i in range(3):
                frame = animator.animate(blob(64, 0.1 * i, 0), size=size)  # type: ignore[arg-type]
                assert np.array_equal(frame, animator.compose(size))  # type: ignore[arg-type]
            assert device.calls.count("begin_capture") == captures + 1
            held.append((len(device.executables), len(device.blocks), len(device.pins)))
        assert held == [held[0]] * 4, "what belonged to the last one was given back"


@pytest.mark.parametrize("what", ["malloc", "pinned", "no code for this GPU"])
def test_where_the_device_cannot_compose_the_cpu_does(
    trt: FakeTrt, kernel: Kernel, layered: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [blob(64, 0.1, 0), blob(64, 0.2, 0)]
    with begun_animator(layered) as animator:
        expected = [animator.animate(frame, size="source") for frame in frames]
    with begun_animator(layered) as animator:
        held = len(trt.device.blocks), len(trt.device.pins)
        if what in ("malloc", "pinned"):
            trt.device.fail(what)
        else:
            kernel.status = 209  # cudaErrorNoKernelImageForDevice
        found = [animator.animate(frame, size="source") for frame in frames]
        assert not animator.session.backend.can_compose  # type: ignore[attr-defined]
        assert (len(trt.device.blocks), len(trt.device.pins)) == held
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert all(levels_apart(*pair) <= LEVELS for pair in zip(found, expected, strict=True))


def test_composing_that_is_not_captured_or_cut_short_leaves_plain_frames_alone(
    trt: FakeTrt, kernel: Kernel, layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun_animator(layered) as animator:
        with monkeypatch.context() as patch:
            patch.setattr(animator.session, "animate", lambda: [][0])
            with pytest.raises(IndexError):
                animator.animate(blob(64, 0.4, 0), size="source")
        frame = animator.animate(blob(64, -0.4, 0))
        assert np.array_equal(frame, animator.read("frame")[0, 0])
        for _ in range(3):
            trt.device.fail("begin_capture")
            animator.animate(blob(64, 0.1, 0), size="source")
        asked = trt.device.asked(lambda: animator.animate(blob(64, 0.1, 0)))
        assert asked == ["launch", "synchronise"]


def test_a_kernel_that_is_refused_later_and_a_lost_gpu_are_reported(
    trt: FakeTrt, kernel: Kernel, layered: Path
) -> None:
    animator = begun_animator(layered)
    animator.animate(blob(64, 0.1, 0), size="source")
    kernel.status = 209
    assert animator.animate(blob(64, 0.2, 0), size="source").any(), "the graph has it"
    animator.animate(blob(64, 0.2, 0))
    with pytest.raises(BackendError, match="209"):
        animator.compose()
    kernel.status = 0
    trt.device.fail("synchronise", "cudaErrorIllegalAddress")
    for _ in range(2):
        with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
            animator.compose()
    animator.close()
    trt.forget()


def test_without_the_library_the_layers_come_to_the_host(
    trt: FakeTrt, layered: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_composer, "load_kernel", lambda: None)
    with begun_animator(layered) as animator:
        backend = animator.session.backend
        assert isinstance(backend, ComposesFrames) and not backend.can_compose
        steps = trt.device.carried_out(lambda: animator.animate(blob(64, 0, 0), size="source"))
        assert steps == [*BEGIN, *["download"] * 6]
    monkeypatch.setattr(device_composer, "load_kernel", lambda: pytest.fail("it was looked for"))
    with Animator.open(toy_bundle, "tensorrt") as animator:  # without layers
        assert not animator.session.backend.can_compose  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("plugin", "kernels", "loads", "warnings"),
    [
        ("", "", False, 0),
        ("", "good", True, 0),
        ("good", "", True, 0),
        ("of another machine", "good", True, 0),  # a bad plugin hides no kernels
        ("of another machine", "", False, 1),
        ("without the function", "", False, 1),
        ("named wrongly", "", False, 1),
    ],
)
def test_either_library_serves_and_one_that_does_not_is_reported(
    tmp_path: Path, library: Path, plugin: str, kernels: str, loads: bool, warnings: int,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    monkeypatch.setattr(device_composer, "LIBRARIES", tmp_path)
    monkeypatch.setattr("sonomime.runtime.engines.tensorrt_packages.LIBRARIES", tmp_path)
    for name, content in (("plugin", plugin), ("kernels", kernels)):
        file = tmp_path / f"libsonomime_{name}.so"
        if content == "good":
            file.symlink_to(library)
        elif content:
            file.write_bytes(b"not a library")
    if plugin == "without the function":
        mathematics = ctypes.util.find_library("m")
        monkeypatch.setattr(ctypes, "CDLL", lambda path, load=ctypes.CDLL: load(mathematics))
    elif plugin == "named wrongly":
        monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "nowhere.so"))
    found = device_composer.load_kernel()
    assert (found is not None) == loads
    assert found is None or found.argtypes == device_composer.SIGNATURE
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings
