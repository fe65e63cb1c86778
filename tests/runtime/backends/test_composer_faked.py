"""Frames composed on a device that is played by the host, by the kernel compiled for it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import host_kernels
import numpy as np
import pytest
from composed_cases import LEVELS, speckle
from fake_cuda import FakeCuda
from fake_engines import FRAME, Machine
from numpy.random import mtrand
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends import device_composer
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.support.errors import BackendError


class Kernel:
    """The function of the library, for memory of the fake GPU and in its stream's order."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.status = cuda, 0

    def __call__(self, *arguments: int) -> int:
        self.cuda.called("compose", arguments[-1])
        if not self.status:
            self.cuda.enqueue(arguments[-1], "compose", lambda: self._compose(arguments[:-1]))
        return self.status

    def _compose(self, given: tuple[int, ...]) -> None:
        for address in given[:9]:
            self.cuda.block(address)  # it is still there
        assert host_kernels.built().library.sonomime_compose_frame(*given, None) == 0


@pytest.fixture
def kernel(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel(cuda)
    monkeypatch.setattr(device_composer, "load_kernel", lambda: kernel)
    return kernel


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "layered", layers=True)


def begun_animator(folder: Path) -> Animator:
    """With a source, and captured frames of the model's own size."""
    animator = Animator.open(folder, "tensorrt")
    animator.set_source(speckle(100, 75))
    for i in range(3):
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
    cuda: FakeCuda, kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str,
    model: int, channels: tuple[int, ...],
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=model, layers=True)
    results = []
    for name in ("ort-cpu", "tensorrt"):
        with Animator.open(folder, name, threads=1) as animator:
            results.append(scene(animator, channels))
    assert "compose" in cuda.done and ("GraphLaunch" in cuda.calls) == (graph == "1")
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        assert one.shape == other.shape and levels_apart(one, other) <= LEVELS


def test_a_composed_frame_is_one_launch_and_one_download(
    cuda: FakeCuda, kernel: Kernel, layered: Path
) -> None:
    with begun_animator(layered) as animator:
        before = animator.animate(blob(64, 0, 0), size="source")  # takes it, and is captured

        def composed() -> None:
            animator.animate(blob(64, 0, 0), size="source")

        assert cuda.asked(composed) == ["GraphLaunch", "StreamSynchronize"]
        assert cuda.carried_out(composed) == [*FRAME, "compose", "download"]
        assert cuda.carried_out(animator.compose) == [], "it is there"
        plain = cuda.carried_out(lambda: animator.animate(blob(64, 0, 0)))
        assert plain == [*FRAME, "download"], "what nobody asked for is not composed"
        assert cuda.carried_out(animator.compose) == ["compose", "download"]
        backend = animator.session.backend
        backend.write("gate", animator.read("gate") / 2)
        assert levels_apart(animator.compose(), before) > 20, "it is composed again"
        backend.run("motion")
        assert np.array_equal(animator.compose(), before)


def test_another_size_or_source_is_captured_again_and_takes_the_place(
    cuda: FakeCuda, kernel: Kernel, layered: Path
) -> None:
    with begun_animator(layered) as animator:
        held = []
        for source, size in ((100, "source"), (100, (200, 150)), (60, "source"), (60, "model")):
            if source == 60:
                animator.set_source(speckle(60, 80))
            captures = cuda.calls.count("StreamBeginCapture")
            for i in range(3):
                frame = animator.animate(blob(64, 0.1 * i, 0), size=size)  # type: ignore[arg-type]
                assert np.array_equal(frame, animator.compose(size))  # type: ignore[arg-type]
            assert cuda.calls.count("StreamBeginCapture") == captures + 1
            held.append(sorted(cuda.leaks()))
        assert held == [held[0]] * 4, "what belonged to the last one was given back"


@pytest.mark.parametrize("what", ["Malloc", "HostAlloc", "no code for this GPU"])
def test_where_the_device_cannot_compose_the_cpu_does(
    cuda: FakeCuda, kernel: Kernel, layered: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with begun_animator(layered) as animator:
        held, expected = cuda.leaks(), []
        for fails in (False, True):
            if fails:
                cuda.fail(what)
                kernel.status = 209 if what.startswith("no code") else 0  # NoKernelImageForDevice
                animator.set_source(speckle(100, 75))
            expected.append(animator.animate(blob(64, 0.2, 0), size="source"))
        assert levels_apart(*expected) <= LEVELS
        assert not animator.session.backend.can_compose  # type: ignore[attr-defined]
        assert cuda.leaks() == held
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_composing_that_is_not_captured_or_cut_short_leaves_plain_frames_alone(
    cuda: FakeCuda, kernel: Kernel, layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun_animator(layered) as animator:
        with monkeypatch.context() as patch:
            patch.setattr(animator.session, "animate", lambda: [][0])
            with pytest.raises(IndexError):
                animator.animate(blob(64, 0.4, 0), size="source")
        frame = animator.animate(blob(64, -0.4, 0))
        assert np.array_equal(frame, animator.read("frame")[0, 0])
        for _ in range(3):
            cuda.fail("StreamBeginCapture")
            animator.animate(blob(64, 0.1, 0), size="source")
        asked = cuda.asked(lambda: animator.animate(blob(64, 0.1, 0)))
        assert asked == ["GraphLaunch", "StreamSynchronize"]


def test_a_kernel_that_is_refused_later_and_a_lost_gpu_are_reported(
    machine: Machine, kernel: Kernel, layered: Path
) -> None:
    animator = begun_animator(layered)
    animator.animate(blob(64, 0.1, 0), size="source")
    kernel.status = 209
    assert animator.animate(blob(64, 0.2, 0), size="source").any(), "the graph has it"
    animator.animate(blob(64, 0.2, 0))
    with pytest.raises(BackendError, match="209"):
        animator.compose()
    kernel.status = 0
    machine.cuda.fail("StreamSynchronize", "cudaErrorIllegalAddress")
    for _ in range(2):
        with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
            animator.compose()
    animator.close()
    machine.forget()


def test_without_the_library_the_layers_come_to_the_host(
    cuda: FakeCuda, layered: Path, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_composer, "load_kernel", lambda: None)
    with begun_animator(layered) as animator:
        assert not animator.session.backend.can_compose  # type: ignore[attr-defined]
        steps = cuda.carried_out(lambda: animator.animate(blob(64, 0, 0), size="source"))
        assert steps == [*FRAME, *["download"] * 6]
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
    tmp_path: Path, plugin: str, kernels: str, loads: bool, warnings: int,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.delenv("SONOMIME_PLUGIN", raising=False)
    monkeypatch.setattr(device_composer, "LIBRARIES", tmp_path)
    monkeypatch.setattr("sonomime.runtime.engines.tensorrt_packages.LIBRARIES", tmp_path)
    for name, content in (("plugin", plugin), ("kernels", kernels)):
        file = tmp_path / f"libsonomime_{name}.so"
        if content == "good":
            file.symlink_to(host_kernels.built().library._name)
        elif content == "without the function":
            file.symlink_to(mtrand.__file__)
        elif content:
            file.write_bytes(b"not a library")
    if plugin == "named wrongly":
        monkeypatch.setenv("SONOMIME_PLUGIN", str(tmp_path / "nowhere.so"))
    found = device_composer.load_kernel()
    assert (found is not None) == loads
    assert found is None or found.argtypes == device_composer.SIGNATURE
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * warnings
