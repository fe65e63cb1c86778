"""Whole frames on a device that is played by the host: order, capture, wiring, results."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_engines import FakeTrt
from toy_bundle import CONTROLS, blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.base import TakesDeviceArrays
from sonomime.runtime.backends.tensorrt import TensorRtBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError

STAGES = ["keypoints", "transfer", "motion", "generator"]
CONTROL_NAMES = [control.name for control in CONTROLS]
FRAME = [
    "upload", "record", "keypoints", "record", "transfer", "record", "motion", "record",
    "generator", "record", "copy", "download",
]  # fmt: skip


def backend_of(folder: Path, name: str = "tensorrt") -> TensorRtBackend:
    backend = open_backend(name, Bundle.open(folder))
    assert isinstance(backend, TensorRtBackend) and isinstance(backend, TakesDeviceArrays)
    return backend


def calls(device: FakeDevice, action: Callable[[], Any]) -> list[str]:
    """What an action asks of the device."""
    before = len(device.calls)
    action()
    return device.calls[before:]


def scene(animator: Animator, size: int, channels: int = 1) -> list[Any]:
    """Everything that an Animator does, with what comes of it."""

    def frame(x: float, y: float, width: int = size, height: int = size) -> Any:
        return blob(width, x, y, channels, height=height)

    made: list[Any] = []
    animator.set_source(frame(0.1, -0.1))
    for i in range(5):
        made.append(animator.animate(frame(-0.3 + 0.1 * i, 0.2)))
        made.append(animator.read("state"))
    animator.set_source(frame(0.0, 0.2))
    made.append(animator.animate(frame(0.2, 0.1), 7.0))
    made.append(animator.animate(frame(0.3, 0.1), 7.2))
    animator.set_reference(frame(0.3, 0.3))
    made.append(animator.animate(frame(0.1, 0.1, size + 20, size - 10)))
    made.append(animator.detect(frame(0.4, 0.4)))
    animator.reset()
    for i in range(3):
        made.append(animator.animate(frame(0.1 * i, 0)))
    made += [animator.read(name) for name in ("reference_kp_value", "deformation", "scale")]
    return made


@pytest.mark.parametrize("graph", ["1", "0"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"motion": "absolute"},
        {"smooth": True},
        {"scale": "hull", "smooth": (2.0, 5.0)},
    ],
    ids=["relative", "absolute", "smooth", "hull"],
)
def test_frames_are_those_of_the_cpu(
    trt: FakeTrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str, channels: int,
    options: dict[str, Any],
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    with Animator.open(folder, "ort-cpu", threads=1, **options) as animator:
        expected = scene(animator, 64, channels)
    with Animator.open(folder, "tensorrt", **options) as animator:
        found = scene(animator, 64, channels)
        assert animator.session.backend.captured == (graph == "1")
        assert ("launch" in trt.device.calls) == (graph == "1")
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_the_default_bundle_s_frames_are_those_of_the_cpu(trt: FakeTrt) -> None:
    results = []
    for name in ("ort-cpu", "rtx"):
        with Animator.open(None, name, threads=1, smooth=True) as animator:
            size = animator.session.chain.image.size
            animator.set_source(blob(size, 0.1, -0.1))
            frames = [blob(size, -0.3 + 0.1 * i, 0.2) for i in range(4)]
            results.append([animator.animate(frame) for frame in frames])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert results[0][0].any() and not np.array_equal(results[0][0], results[0][3])


def test_a_plain_frame_then_a_capture_then_launches(trt: FakeTrt, toy_bundle: Path) -> None:
    device, backend = trt.device, backend_of(toy_bundle)
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    begun = len(device.done)
    plain = calls(device, backend.run_frame)
    assert device.done[begun:] == FRAME
    assert "begin_capture" not in plain and plain.count("synchronise") == 1
    assert plain[-1] == "synchronise" and plain.count("execute") == 4

    begun = len(device.done)
    captured = calls(device, backend.run_frame)
    first, last = captured.index("begin_capture"), captured.index("end_capture")
    assert captured[last:] == ["end_capture", "instantiate", "launch", "synchronise"]
    # Nothing is allocated or waited for in between; the fake refuses pageable memory there.
    inside = set(captured[first + 1 : last])
    assert inside == {"upload", "record", "execute", "copy", "download"}
    assert device.done[begun:] == FRAME

    for _ in range(3):
        begun = len(device.done)
        assert calls(device, backend.run_frame) == ["launch", "synchronise"]
        assert device.done[begun:] == FRAME
    assert trt.addressed.count("deformation") == 2, "addresses are set once per context"
    backend.close()


def test_the_source_s_state_stays_on_the_device(trt: FakeTrt, toy_bundle: Path) -> None:
    device = trt.device
    with Animator.open(toy_bundle, "tensorrt", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        features = animator.read("source_feature")
        animator.animate(blob(64, 0.2, 0))
        begun = len(device.done)
        for x in (0.3, 0.4, 0.5):
            animator.animate(blob(64, x, 0))
        frames = device.done[begun:]
        assert frames.count("upload") == 3 and "source" not in frames
        assert frames.count("download") == 3
        assert np.array_equal(animator.read("source_feature"), features)


def test_the_first_frame_detects_the_reference_before_it(trt: FakeTrt, toy_bundle: Path) -> None:
    device = trt.device
    with Animator.open(toy_bundle, "tensorrt") as animator:
        animator.set_source(blob(64, 0, 0))
        begun = len(device.done)
        animator.animate(blob(64, 0.2, 0))
        assert device.done[begun:] == ["upload", "keypoints", "copy", "copy", *FRAME]


def test_all_a_frame_takes_goes_up_in_one_copy(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    for i, name in enumerate(CONTROL_NAMES):
        backend.view(name)[0] = i + 1
    backend.view("driving_frame")[...] = 200
    backend.run_frame()
    memory = trt.device
    for i, name in enumerate(CONTROL_NAMES):
        held = memory.block(backend._memory.address(name))[:4].view(np.float32)
        assert held[0] == i + 1 == backend.read(name)[0]
    assert (memory.block(backend._memory.address("driving_frame"))[: 64 * 64] == 200).all()
    assert memory.done[-len(FRAME) :].count("upload") == 1
    backend.close()


def test_no_two_tensors_share_memory(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    manifest = Bundle.open(toy_bundle).manifest
    spans = []
    for stage in manifest.stages:
        for tensor in (*stage.inputs, *stage.outputs):
            begin = backend._memory.address(tensor.name)
            assert begin % 256 == 0
            size = int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize
            spans.append((begin, begin + size, tensor.name))
    spans = sorted(set(spans))
    for (_, end, _), (begin, _, _) in itertools.pairwise(spans):
        assert end <= begin
    assert len({name for _, _, name in spans}) == len(spans)
    backend.close()


def test_states_are_zero_at_first_and_carried_on(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    for name in ("source_image", "driving_frame", "frame", *CONTROL_NAMES):
        assert not backend.view(name).any(), "nor is fresh pinned memory"
    assert not backend.read("state").any(), "fresh memory of a device is not zero"
    backend.run_frame()
    assert backend.read("state")[0, 0] == 1
    assert np.array_equal(backend.read("state"), backend.read("next_state"))
    backend.write("state", 0)
    assert not backend.read("state").any() and backend.read("next_state").any()
    backend.close()


def test_read_write_copy_and_view(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    points = np.arange(6, dtype=np.float32).reshape(1, 3, 2)
    backend.write("driving_kp_value", points)
    backend.copy("driving_kp_value", "reference_kp_value")
    assert np.array_equal(backend.read("reference_kp_value"), points)
    backend.write("frame", 7)
    assert (backend.view("frame") == 7).all() and (backend.read("frame") == 7).all()
    backend.write("scale", 0.5)
    assert backend.read("scale")[0] == 0.5 == backend.view("scale")[0]
    kept = backend.read("scale")
    kept[0] = 3
    assert backend.read("scale")[0] == 0.5
    assert backend.view("frame") is backend.view("frame")
    for name in ("deformation", "state"):
        with pytest.raises(BackendError, match="no boundary tensor"):
            backend.view(name)
    backend.close()


def test_the_generator_alone_brings_its_frame_down(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    backend.write("source_image", blob(64, 0, 0))
    backend.write("driving_frame", blob(64, 0.5, 0))
    for stage in ("source", *STAGES):
        backend.run(stage)
    assert np.abs(backend.view("frame")[0, 0].astype(int) - blob(64, 0.5, 0)).max() <= 3
    backend.close()


def test_seconds_are_the_device_s(trt: FakeTrt, toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, "tensorrt") as animator:
        assert dict(animator.timings) == dict.fromkeys(STAGES, 0.0)
        animator.set_source(blob(64, 0, 0))
        for _ in range(3):  # plain, captured, launched
            animator.animate(blob(64, 0, 0))
            # The fake's clock: a millisecond for every piece of work, here a stage and its record.
            assert list(animator.timings.values()) == pytest.approx([2e-3] * 4)
        asked = trt.device.calls.count("elapsed")
        assert dict(animator.timings) and trt.device.calls.count("elapsed") == asked
        animator.animate(blob(64, 0, 0))
        assert trt.device.calls.count("elapsed") == asked, "nobody asked"
        timings = animator.timings
    assert timings["motion"] == pytest.approx(2e-3), "readable after the end"
    assert "motion 2.00 ms" in repr(timings)


def test_animators_share_engines_and_nothing_else(trt: FakeTrt, toy_bundle: Path) -> None:
    def follow(animator: Animator, x: float) -> Any:
        return animator.animate(blob(64, x, 0))

    one = Animator.open(toy_bundle, "tensorrt", motion="absolute", smooth=True)
    two = Animator.open(toy_bundle, "tensorrt", motion="absolute")
    assert (trt.deserialised, trt.engines, trt.contexts) == (5, 5, 10)
    assert len(trt.device.streams) == 3  # theirs, and the default one
    one.set_source(blob(64, 0, 0))
    two.set_source(blob(64, 0, 0.5))
    for x in (0.1, 0.2, 0.3):
        follow(one, x)
        made = follow(two, -x)
        assert np.abs(made.astype(int) - blob(64, -x, 0.0)).max() <= 3
    assert not np.array_equal(one.read("state"), two.read("state"))
    one.close()
    follow(two, 0.4)
    assert trt.contexts == 5
    two.close()
    with Animator.open(toy_bundle, "tensorrt"):
        assert trt.deserialised == 10, "what nobody used any more was let go"


def test_plugins_are_for_full_tensorrt_alone(trt: FakeTrt, toy_bundle: Path) -> None:
    backend_of(toy_bundle, "rtx").close()
    assert trt.plugins == 0 and trt.targets == [["SM89"]]
    backend = backend_of(toy_bundle, "tensorrt")
    assert trt.plugins == 1 and trt.targets[1] == ["Fake GPU 8.9"]
    assert backend.name == "tensorrt" and backend.threads == 1
    assert backend.device == (
        "Fake GPU (sm_89), TensorRT 10.9.8, driver for CUDA 13.0, CUDA runtime 13.0"
    )
    backend.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": [1, 32, 32, 2]}, r"is FLOAT \[1, 32, 32, 2\] LINEAR in the engine"),
        ({"dtype": "HALF"}, "is HALF"),
        ({"format": "HWC8"}, "HWC8 in the engine, FLOAT .* LINEAR in the manifest"),
    ],
)
def test_an_engine_with_other_tensors_than_the_manifest(
    trt: FakeTrt, toy_bundle: Path, change: dict[str, Any], message: str
) -> None:
    trt.altered["deformation"] = change
    with pytest.raises(BackendError, match=message) as caught:
        backend_of(toy_bundle)
    assert "stage 'motion': output 'deformation'" in caught.value.message
    assert "sonomime build" in caught.value.hint


def test_frames_reach_the_plain_path_by_the_environment(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", "0")
    backend = backend_of(toy_bundle)
    for _ in range(3):
        assert calls(trt.device, backend.run_frame).count("execute") == 4
    assert "begin_capture" not in trt.device.calls and not backend.captured
    backend.close()


def test_frames_from_a_thread_that_works_on_another_gpu(trt: FakeTrt, toy_bundle: Path) -> None:
    trt.device.thread.gpu = 1
    with Animator.open(toy_bundle, "tensorrt", motion="absolute", smooth=True) as animator:
        animator.set_source(blob(64, 0, 0))
        made = [animator.animate(blob(64, 0.1 * i, 0)) for i in range(3)]
        assert animator.read("state").any() and trt.device.calls.count("launch") == 2
        assert animator.timings["motion"] > 0
    assert made[2].any() and trt.device.thread.gpu == 1
    trt.device.thread.gpu = 0


def test_every_engine_has_the_one_logger_of_the_process(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = backend_of(toy_bundle)
    loggers = {id(engine.logger) for engine, _ in backend._opened.values()}
    backend.close()
    del backend
    later = backend_of(toy_bundle)
    loggers |= {id(engine.logger) for engine, _ in later._opened.values()}
    later.close()
    assert len(loggers) == 1
