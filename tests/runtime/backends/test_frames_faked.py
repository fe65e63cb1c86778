"""Whole frames on a GPU that the host plays: order of calls, capture, wiring, results."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_displacement
from fake_engines import FRAME, STAGES, Machine
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.session import Session
from sonomime.runtime.support.errors import BackendError


def backend_of(folder: Path, name: str = "tensorrt", device: int | None = None) -> Any:
    return open_backend(name, Bundle.open(folder), threads=1, device=device)


def follows(animator: Animator, x: float) -> bool:
    return levels_apart(animator.animate(blob(64, x, 0)), blob(64, x, 0)) <= 3


def scene(animator: Animator, channels: int) -> list[Any]:
    """Everything that an Animator does, with what comes of it."""

    def frame(x: float, y: float, width: int = 64, height: int = 64) -> Any:
        return blob(width, x, y, channels, height=height)

    made: list[Any] = []
    animator.set_source(frame(0.1, -0.1))
    for i in range(5):
        made += [animator.animate(frame(-0.3 + 0.1 * i, 0.2)), animator.read("state")]
    animator.set_source(frame(0.0, 0.2))
    made += [animator.animate(frame(x, 0.1), t) for x, t in ((0.2, 7.0), (0.3, 7.2))]
    animator.set_reference(frame(0.3, 0.3))
    made.append(animator.animate(frame(0.1, 0.1, 84, 54)))
    made.append(animator.detect(frame(0.4, 0.4)))
    animator.reset()
    made += [animator.animate(frame(0.1 * i, 0)) for i in range(3)]
    seen = {name: animator.read(name) for name in animator.session.passed()}
    other = {name: value + np.float32(0.1) for name, value in seen.items()}
    made += [animator.replay(seen), animator.replay(other, reference=seen)]
    made += [animator.replay(seen, reference=seen), animator.animate(frame(0.2, 0.1))]
    return made + [animator.read(name) for name in ("reference_kp_value", "deformation", "scale")]


@pytest.mark.parametrize(
    ("backend", "graph", "channels", "options"),
    [
        ("tensorrt", "1", 1, {"scale": "hull", "smooth": (2.0, 5.0)}),
        ("tensorrt", "0", 3, {"smooth": True}),
        ("rtx", "1", 3, {"motion": "absolute"}),
        ("ort-cuda", "1", 1, {"scale": "hull", "smooth": True}),
    ],
)
def test_frames_are_those_of_the_cpu(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, displacement_toy: Path,
    backend: str, graph: str, channels: int, options: dict[str, Any],
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    results = []
    for name in ("ort-cpu", backend):
        with Animator.open(folder, name, threads=1, **options) as animator:
            made = scene(animator, channels)
            if name == backend:
                one_graph = graph == "1" and name != "ort-cuda"
                assert animator.session.backend.captured == one_graph  # type: ignore[attr-defined]
                assert ("GraphLaunch" in machine.cuda.calls) == one_graph
        bundle = Bundle.open(displacement_toy)  # with landmarks and an alignment
        session = Session(bundle.manifest, open_backend(name, bundle, threads=1))
        results.append([*made, *toy_displacement.scene(session)])
        session.close()
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)
    assert results[0][0].any() and not np.array_equal(results[0][-19], results[0][-15]), (
        "the alignment counts"
    )


def test_a_plain_frame_then_a_capture_then_launches(machine: Machine, toy_bundle: Path) -> None:
    cuda, backend = machine.cuda, backend_of(toy_bundle)
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    begun = len(cuda.done)
    plain = cuda.asked(backend.run_frame)
    assert "StreamBeginCapture" not in plain and plain.count("execute") == 4
    assert plain.count("StreamSynchronize") == 1 and plain[-1] == "StreamSynchronize"

    captured = cuda.asked(backend.run_frame)
    first, last = captured.index("StreamBeginCapture"), captured.index("StreamEndCapture")
    launched = ["GraphLaunch", "StreamSynchronize"]
    assert captured[last + 1 :] == ["GraphInstantiate", "GraphDestroy", *launched]
    # Nothing is allocated or waited for in between; the fake refuses pageable memory there.
    assert set(captured[first + 1 : last]) == {"MemcpyAsync", "EventRecordWithFlags", "execute"}

    for _ in range(3):
        assert cuda.asked(backend.run_frame) == launched
    assert cuda.done[begun:] == [*FRAME, "download"] * 5
    assert machine.trt.addressed.count("deformation") == 2, "set once per context"
    backend.close()


def test_all_a_frame_takes_goes_up_in_one_copy_and_no_image_for_landmarks(
    machine: Machine, displacement_toy: Path
) -> None:
    backend = backend_of(displacement_toy)

    def on_the_device(*tensors: str) -> dict[str, Any]:
        with backend._guard():
            return {name: backend._memory.read(name) for name in tensors}

    backend.view("landmark_image")[...] = 7
    for i in range(3):  # plain, captured, launched
        backend.view("alignment")[...] = i + 1
        backend.view("driving_frame")[...] = i
        assert machine.cuda.carried_out(backend.run_frame).count("upload") == 1
        held = on_the_device(*backend._memory.views)
        assert (held["alignment"] == i + 1).all() and (held["driving_frame"] == i).all()
        assert not held["landmark_image"].any()
    backend.run("landmarks")
    assert (on_the_device("landmark_image")["landmark_image"] == 7).all(), "it takes its own up"
    backend.close()


@pytest.mark.parametrize("name", ["ort-cpu", "tensorrt"])
def test_tensors_are_read_written_copied_and_viewed(
    machine: Machine, toy_bundle: Path, name: str
) -> None:
    backend = backend_of(toy_bundle, name)

    def frame_is_at(x: float) -> bool:
        return levels_apart(backend.view("frame")[0, 0], blob(64, x, 0)) <= 3

    for tensor in ("source_image", "driving_frame", "frame"):
        assert not backend.view(tensor).any(), "nor is fresh pinned memory"
        assert backend.view(tensor) is backend.view(tensor)
    assert not backend.read("state").any(), "fresh memory of a device is not zero"
    assert list(backend.seconds) == STAGES and not any(backend.seconds.values())
    backend.write("source_image", blob(64, 0, 0))
    backend.run("source")
    backend.view("driving_frame")[0, 0] = blob(64, 0.5, 0)
    backend.run_frame()
    assert frame_is_at(0.5) and backend.read("state")[0, 0] == 1 and all(backend.seconds.values())
    assert np.array_equal(backend.read("state"), backend.read("next_state"))
    backend.write("driving_frame", blob(64, -0.5, 0))
    for stage in STAGES:  # one by one, and the state stays
        backend.run(stage)
    assert frame_is_at(-0.5)
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


def test_animators_share_engines_and_nothing_else(machine: Machine, toy_bundle: Path) -> None:
    trt = machine.trt
    one = Animator.open(toy_bundle, "tensorrt", motion="absolute", smooth=True)
    two = Animator.open(toy_bundle, "tensorrt", motion="absolute")
    assert (trt.deserialised, trt.engines, machine.alive) == (5, 5, 10)
    assert len(machine.cuda.streams()) == 3  # theirs, and the default one
    one.set_source(blob(64, 0, 0))
    two.set_source(blob(64, 0, 0))
    for x in (0.1, 0.2, 0.3):
        one.animate(blob(64, x, 0))
        assert follows(two, -x)
    assert not np.array_equal(one.read("state"), two.read("state"))
    one.close()
    assert follows(two, 0.4) and machine.alive == 5
    two.close()
    with Animator.open(toy_bundle, "tensorrt"):
        assert trt.deserialised == 10, "what nobody used any more was let go"


@pytest.mark.parametrize(
    ("name", "plugins", "targets"), [("rtx", 0, ["SM88"]), ("tensorrt", 1, ["Fake GPU 1 8.8"])]
)
def test_frames_on_the_second_gpu_touch_no_other_and_rtx_no_plugin(
    machine: Machine, toy_bundle: Path, name: str, plugins: int, targets: list[str]
) -> None:
    machine.cuda.count = 2
    with Animator.open(toy_bundle, name, device=1, motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        assert all(follows(animator, x) for x in (0.1, 0.2, 0.3))
        title = "TensorRT-RTX" if name == "rtx" else "TensorRT"
        words = f"Fake GPU 1 (sm_88), {title} 10.9.8, driver for CUDA 13.0, CUDA runtime 13.5"
        assert animator.session.backend.device == words
    assert "GraphLaunch" in machine.cuda.calls
    assert machine.cuda.contexts == {1}, "to go back to GPU 0 would take memory of it"
    assert (machine.trt.plugins, machine.trt.targets) == (plugins, [targets])
    with Animator.open(toy_bundle, name, device=0), Animator.open(toy_bundle, name, device=1):
        assert machine.trt.engines == machine.alive == 2 * 5, "two GPUs share no engine"


def test_onnx_runtime_has_one_stream_graphs_of_its_own_and_one_synchronisation(
    machine: Machine, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.cuda.count = 2
    for _ in range(2):
        backend_of(toy_bundle, "ort-cuda").close()
    assert machine.ort.preloads == 1 and capsys.readouterr().out == "", "once, and quietly"
    machine.ort.opened.clear()
    backend = backend_of(toy_bundle, "ort-cuda", device=1)
    facts = {"device_id": "1", "user_compute_stream": str(backend._stream)}
    facts |= {"enable_cuda_graph": "1", "use_tf32": "0"}
    assert machine.ort.opened == [{**facts, "stage": stage} for stage in ("source", *STAGES)]
    assert backend.name == "ort-cuda" and "ONNX Runtime 1.99 CUDA" in backend.device
    for _ in range(3):
        asked = machine.cuda.asked(backend.run_frame)
        assert asked.count("execute") == 4 and asked.count("StreamSynchronize") == 1
        assert "StreamBeginCapture" not in asked
        assert list(backend.seconds.values()) == [pytest.approx(2e-3)] * 4
    backend.close()


def test_a_stage_of_onnx_runtime_that_cannot_be_a_graph_runs_without(
    machine: Machine, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine.wrong["graph"] = "motion"
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        assert follows(animator, 0.2)
    graphs = [each["enable_cuda_graph"] for each in machine.ort.opened if each["stage"] == "motion"]
    assert graphs == ["1", "0"] and "'motion'" in caplog.text


def test_captures_of_onnx_runtime_are_made_alone_and_later_if_another_thread_broke_them(
    machine: Machine, toy_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = machine.ort
    fake.spoiled = ["source", "generator"]
    with Animator.open(toy_bundle, "ort-cuda", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        assert follows(animator, 0.2) and fake.captures == ["source", *STAGES]
        for expected in (["generator"], []):
            fake.captures.clear()
            animator.animate(blob(64, 0, 0))
            assert fake.captures == expected
        with ThreadPoolExecutor(1) as other:  # for which it captures again
            other.submit(animator.animate, blob(64, 0, 0)).result()
        assert fake.captures == STAGES and caplog.messages == []
        fake.captures.clear()
        fake.spoiled = ["motion"] * 9
        with ThreadPoolExecutor(1) as other:
            for x in (0.1, 0.2, 0.3, 0.4):
                assert other.submit(follows, animator, x).result()
        assert fake.captures.count("motion") == 2, "what fails twice runs plainly for good"
        assert len(caplog.messages) == 1 and "'motion'" in caplog.messages[0]
        assert not machine.cuda.capturing(), "the end of the session would be the program's"
