"""Whole frames on a device that the host plays, by engines that ONNX Runtime plays: order of calls,
capture, wiring, results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_displacement
from fake_engines import FakeTrt
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError

STAGES = ["keypoints", "transfer", "motion", "generator"]
FRAME = ["upload", "record", *(step for stage in STAGES for step in (stage, "record"))]
FRAME += ["copy", "download"]


def backend_of(folder: Path, name: str = "tensorrt") -> Any:
    return open_backend(name, Bundle.open(folder), threads=1)


def scene(animator: Animator, size: int, channels: int = 1) -> list[Any]:
    """Everything that an Animator does, with what comes of it."""

    def frame(x: float, y: float, width: int = size, height: int = size) -> Any:
        return blob(width, x, y, channels, height=height)

    made: list[Any] = []
    animator.set_source(frame(0.1, -0.1))
    for i in range(5):
        made += [animator.animate(frame(-0.3 + 0.1 * i, 0.2)), animator.read("state")]
    animator.set_source(frame(0.0, 0.2))
    made += [animator.animate(frame(x, 0.1), t) for x, t in ((0.2, 7.0), (0.3, 7.2))]
    animator.set_reference(frame(0.3, 0.3))
    made.append(animator.animate(frame(0.1, 0.1, size + 20, size - 10)))
    made.append(animator.detect(frame(0.4, 0.4)))
    animator.reset()
    made += [animator.animate(frame(0.1 * i, 0)) for i in range(3)]
    made += [animator.read(name) for name in ("reference_kp_value", "deformation", "scale")]
    return made


def same(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("graph", "channels", "options"),
    [
        ("1", 1, {"scale": "hull", "smooth": (2.0, 5.0)}),
        ("0", 3, {"smooth": True}),
        ("1", 3, {"motion": "absolute"}),
        ("0", 1, {}),
    ],
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
        same(scene(animator, 64, channels), expected)
        assert animator.session.backend.captured == (graph == "1")
    assert ("launch" in trt.device.calls) == ("begin_capture" in trt.device.calls) == (graph == "1")


def test_the_default_bundle_s_frames_are_those_of_the_cpu(trt: FakeTrt) -> None:
    results = []
    for name in ("ort-cpu", "rtx"):
        with Animator.open(None, name, threads=1, smooth=True) as animator:
            size = animator.session.chain.image.size
            animator.set_source(blob(size, 0.1, -0.1))
            frames = [blob(size, -0.3 + 0.1 * i, 0.2) for i in range(4)]
            results.append([animator.animate(frame) for frame in frames])
    same(*results)
    assert results[0][0].any() and not np.array_equal(results[0][0], results[0][3])


@pytest.mark.parametrize(("name", "graph"), [("tensorrt", "1"), ("rtx", "0")])
def test_landmarks_and_alignment_are_those_of_the_cpu(
    trt: FakeTrt, displacement_toy: Path, monkeypatch: pytest.MonkeyPatch, name: str, graph: str
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    bundle = Bundle.open(displacement_toy)
    results = []
    for each in ("ort-cpu", name):
        session = Session(bundle.manifest, open_backend(each, bundle, threads=1))
        results.append(toy_displacement.scene(session))
        session.close()
    same(*results)
    assert not np.array_equal(results[0][4], results[0][8]), "the alignment counts"


def test_a_plain_frame_then_a_capture_then_launches(trt: FakeTrt, toy_bundle: Path) -> None:
    device, backend = trt.device, backend_of(toy_bundle)
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    begun = len(device.done)
    plain = device.asked(backend.run_frame)
    assert "begin_capture" not in plain and plain.count("execute") == 4
    assert plain.count("synchronise") == 1 and plain[-1] == "synchronise"

    captured = device.asked(backend.run_frame)
    first, last = captured.index("begin_capture"), captured.index("end_capture")
    assert captured[last:] == ["end_capture", "instantiate", "launch", "synchronise"]
    # Nothing is allocated or waited for in between; the fake refuses pageable memory there.
    inside = set(captured[first + 1 : last])
    assert inside == {"upload", "record", "execute", "copy", "download"}

    for _ in range(3):
        assert device.asked(backend.run_frame) == ["launch", "synchronise"]
    assert device.done[begun:] == FRAME * 5
    assert trt.addressed.count("deformation") == 2, "addresses are set once per context"
    backend.close()


def test_all_a_frame_takes_goes_up_in_one_copy_and_no_image_for_landmarks(
    trt: FakeTrt, displacement_toy: Path
) -> None:
    backend = backend_of(displacement_toy)
    backend.view("landmark_image")[...] = 7
    cells, names = toy_displacement.CELLS, toy_displacement.NAMES

    def held(tensor: str, count: int) -> Any:
        return trt.device.block(backend._memory.address(tensor))[:count]

    for i in range(3):  # plain, captured, launched
        backend.view("alignment")[...] = i + 1
        backend.view("driving_frame")[...] = i
        assert trt.device.carried_out(backend.run_frame).count("upload") == 1
        assert (held("alignment", 4 * 2 * cells**2).view(np.float32) == i + 1).all()
        assert (held("driving_frame", 64 * 64) == i).all()
        assert not held("landmark_image", 64 * 64).any()
    backend.run("landmarks")
    assert (held("landmark_image", 64 * 64) == 7).all(), "it takes its own up"
    assert backend.read("landmarks").shape == (1, len(names), 3)
    backend.close()


@pytest.mark.parametrize("name", ["ort-cpu", "tensorrt"])
def test_tensors_are_read_written_copied_and_viewed(
    trt: FakeTrt, toy_bundle: Path, name: str
) -> None:
    backend = backend_of(toy_bundle, name)
    for tensor in ("source_image", "driving_frame", "frame"):
        assert not backend.view(tensor).any(), "nor is fresh pinned memory"
        assert backend.view(tensor) is backend.view(tensor)
    assert not backend.read("state").any(), "fresh memory of a device is not zero"
    assert list(backend.seconds) == STAGES and not any(backend.seconds.values())
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    backend.view("driving_frame")[0, 0] = blob(64, 0.5, 0)
    backend.run_frame()
    assert np.abs(backend.view("frame")[0, 0].astype(int) - blob(64, 0.5, 0)).max() <= 3
    assert backend.read("state")[0, 0] == 1 and all(backend.seconds.values())
    assert np.array_equal(backend.read("state"), backend.read("next_state"))
    backend.write("driving_frame", blob(64, -0.5, 0))
    for stage in STAGES:  # one by one, and the state stays
        backend.run(stage)
    assert np.abs(backend.view("frame")[0, 0].astype(int) - blob(64, -0.5, 0)).max() <= 3
    assert backend.read("driving_kp_value")[0, :, 0].mean() == pytest.approx(-0.5, abs=0.01)
    backend.write("state", 0)
    assert not backend.read("state").any() and backend.read("next_state").any()
    backend.copy("driving_kp_value", "reference_kp_value")
    assert np.array_equal(backend.read("reference_kp_value"), backend.read("driving_kp_value"))
    backend.write("frame", 7)
    assert (backend.view("frame") == 7).all() and (backend.read("frame") == 7).all()
    backend.write("scale", 0.5)
    backend.read("scale")[0] = 3
    assert backend.read("scale")[0] == 0.5 == backend.view("scale")[0]
    for tensor in ("deformation", "state", "no_such_tensor"):
        with pytest.raises(BackendError, match=tensor):
            backend.view(tensor)
    backend.close()


def test_animators_share_engines_and_nothing_else(trt: FakeTrt, toy_bundle: Path) -> None:
    one = Animator.open(toy_bundle, "tensorrt", motion="absolute", smooth=True)
    two = Animator.open(toy_bundle, "tensorrt", motion="absolute")
    assert (trt.deserialised, trt.engines, trt.contexts) == (5, 5, 10)
    assert len(trt.device.streams) == 3  # theirs, and the default one
    opened = [*one.session.backend._opened.values(), *two.session.backend._opened.values()]  # type: ignore[attr-defined]
    assert len({id(engine.logger) for engine, _ in opened}) == 1
    del opened
    one.set_source(blob(64, 0, 0))
    two.set_source(blob(64, 0, 0.5))
    for x in (0.1, 0.2, 0.3):
        one.animate(blob(64, x, 0))
        made = two.animate(blob(64, -x, 0))
        assert np.abs(made.astype(int) - blob(64, -x, 0.0)).max() <= 3
    assert not np.array_equal(one.read("state"), two.read("state"))
    one.close()
    assert two.animate(blob(64, 0.4, 0)).any() and trt.contexts == 5
    two.close()
    with Animator.open(toy_bundle, "tensorrt"):
        assert trt.deserialised == 10, "what nobody used any more was let go"


@pytest.mark.parametrize(
    ("name", "plugins", "targets"), [("rtx", 0, ["SM89"]), ("tensorrt", 1, ["Fake GPU 8.9"])]
)
def test_plugins_are_for_full_tensorrt_alone(
    trt: FakeTrt, toy_bundle: Path, name: str, plugins: int, targets: list[str]
) -> None:
    backend = backend_of(toy_bundle, name)
    assert (trt.plugins, trt.targets) == (plugins, [targets])
    assert backend.name == name and backend.threads == 1
    title = "TensorRT-RTX" if name == "rtx" else "TensorRT"
    assert backend.device.startswith(f"Fake GPU (sm_89), {title} 10.9.8, driver for CUDA 13.0")
    backend.close()


@pytest.mark.parametrize(
    "change", [{"shape": [1, 32, 32, 2]}, {"dtype": "HALF"}, {"format": "HWC8"}]
)
def test_an_engine_with_other_tensors_than_the_manifest(
    trt: FakeTrt, toy_bundle: Path, change: dict[str, Any]
) -> None:
    trt.altered["deformation"] = change
    with pytest.raises(BackendError, match="stage 'motion': output 'deformation'") as caught:
        backend_of(toy_bundle)
    assert str(*change.values()) in caught.value.message and "build" in caught.value.hint
