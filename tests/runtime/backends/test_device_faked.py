"""What goes wrong on a GPU that the host plays, and how all of it is given back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_engines
import pytest
from fake_cuda import FakeCuda
from fake_engines import Machine
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.cuda import open_device
from sonomime.runtime.backends.device_backend import alone
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.support.errors import BackendError

LOST = "cudaErrorIllegalAddress"
OF_CAPTURES = ["stage", "StreamBeginCapture", "StreamEndCapture", "GraphInstantiate"]


@pytest.fixture
def by_counting_alone() -> Iterator[None]:
    """Whatever is let go of here went because nothing referred to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def refusal(action: Callable[[], Any]) -> BackendError:
    """The error, without the trace, whose variables would live on."""
    with pytest.raises(BackendError) as caught:
        action()
    return type(caught.value)(caught.value.message, caught.value.hint)


def begun(folder: Path, frames: int = 3, name: str = "tensorrt") -> Animator:
    animator = Animator.open(folder, name, motion="absolute")
    animator.set_source(blob(64, 0, 0))
    for i in range(frames):
        frame = blob(64, 0.1 * i, 0)
        assert levels_apart(animator.animate(frame), frame) <= 3
    return animator


@pytest.mark.parametrize(
    ("count", "code", "driver", "index", "words", "hint"),
    [
        (2, "", 13000, 2, "GPU 2:.*sees 2", "sonomime doctor"),
        (2, "", 13000, -1, "GPU -1:.*sees 2", "sonomime doctor"),
        (0, "", 13000, 0, "no CUDA-capable device", "--gpus all"),
        (1, "InsufficientDriver", 0, 0, "there is no NVIDIA driver", "nvidia-smi"),
        (1, "InsufficientDriver", 11040, 0, "for CUDA 11.4, CUDA runtime 13.5", "nvidia-smi"),
        (1, "NoDevice", 13000, 0, "looking for GPUs.*driver for CUDA 13.0", "--gpus all"),
        (1, "SomethingNew", 13000, 0, "cudaErrorSomethingNew", "sonomime doctor"),
    ],
)
def test_a_gpu_that_is_not_there(
    cuda: FakeCuda, count: int, code: str, driver: int, index: int, words: str, hint: str
) -> None:
    cuda.count, cuda.driver = count, driver
    if code:
        cuda.fail("GetDeviceCount", f"cudaError{code}")
    with pytest.raises(BackendError, match=words) as caught:
        open_device(index)
    assert hint in caught.value.hint and not cuda.contexts


@pytest.mark.parametrize(
    ("call", "times"),
    [("StreamCreateWithFlags", 1), ("Malloc", 1), ("HostAlloc", 1), ("MemsetAsync", 1),
     ("EventCreate", 6), ("context", 5), ("StreamSynchronize", 1)],
)  # fmt: skip
def test_whatever_fails_at_opening_everything_is_given_back(
    machine: Machine, toy_bundle: Path, call: str, times: int
) -> None:
    for after in {0, times - 1}:
        machine.cuda.fail(call, after=after)
        error = refusal(lambda: Animator.open(toy_bundle, "tensorrt"))
        assert "cudaErrorMemoryAllocation" in error.message and "nvidia-smi" in error.hint
        if call in ("Malloc", "HostAlloc"):
            assert " MB" in error.message and " of 1.0 GB are free on Fake GPU" in error.message
        assert machine.cuda.resets or call == "context", "torch would find the error"
        machine.gone()
    machine.cuda.fail(call, after=times)  # one more than there are: it was the last
    Animator.open(toy_bundle, "tensorrt").close()
    machine.cuda.failures.clear()
    begun(toy_bundle).close()


@pytest.mark.parametrize(
    ("backend", "what", "name", "words", "hint"),
    [
        ("tensorrt", "room", "generator", "'generator'.* are free.*requested 1 GiB", "nvidia"),
        ("rtx", "load", "generator", "'generator'.*version tag does not match", "sonomime build"),
        ("tensorrt", "address", "deformation", "'deformation'", "sonomime build"),
        ("tensorrt", "shape", "deformation", r"'motion': output 'deformation'.*32, 32", "build"),
        ("tensorrt", "dtype", "deformation", "'motion': output 'deformation'.*HALF", "build"),
        ("rtx", "format", "source_image", "'source': input 'source_image'.*HWC8", "build"),
        ("ort-cuda", "providers", "", "no CUDA provider", "sonomime.gpu."),
        ("ort-cuda", "loads", "", "on the CPU", r"onnxruntime-gpu\[cuda,cudnn\]"),
        ("ort-cuda", "open", "generator", "'generator'.*out of memory$", "LD_LIBRARY_PATH"),
        ("ort-cuda", "options", "motion", "'motion'", "LD_LIBRARY_PATH"),
    ],
)
def test_what_cannot_be_opened_is_an_error_and_not_a_quiet_cpu(
    machine: Machine, toy_bundle: Path, backend: str, what: str, name: str, words: str, hint: str
) -> None:
    machine.wrong[what] = name
    error = refusal(lambda: Animator.open(toy_bundle, backend))
    with pytest.raises(BackendError, match=words):
        raise error
    with pytest.raises(BackendError, match=hint):
        raise BackendError(error.hint)
    assert error.exit_code == 4
    machine.gone()
    machine.wrong.clear()
    begun(toy_bundle, name=backend).close()


@pytest.mark.parametrize(
    ("backend", "frames", "call", "code"),
    [
        ("tensorrt", 0, "StreamSynchronize", LOST),  # a plain frame
        ("tensorrt", 1, "StreamSynchronize", LOST),  # one that is captured
        ("tensorrt", 3, "StreamSynchronize", LOST),  # a launch of the graph
        ("ort-cuda", 3, "StreamSynchronize", LOST),
        ("tensorrt", 1, "GraphInstantiate", "cudaErrorLaunchFailure"),
        ("tensorrt", 1, "motion", "cudaErrorLaunchFailure"),  # TensorRT only says that it failed
    ],
)
def test_a_lost_context_is_reported_at_once_and_ever_after(
    machine: Machine, toy_bundle: Path, backend: str, frames: int, call: str, code: str
) -> None:
    cuda, animator = machine.cuda, begun(toy_bundle, frames, backend)
    assert animator.timings["motion"] == pytest.approx(2e-3 if frames else 0)
    stage = call == "motion"
    machine.wrong["execute"] = call
    cuda.fail("StreamSynchronize" if stage else call, code)
    words = f"(?s)'motion'.*the kernel refused.*{code}" if stage else code
    with pytest.raises(BackendError, match=words):
        animator.animate(blob(64, 0, 0))
    machine.wrong.clear()
    assert animator.timings["motion"] == pytest.approx(2e-3 if frames else 0), "the last ones"

    def refuses_all() -> None:
        for action in (
            lambda: animator.animate(blob(64, 0, 0)),
            lambda: animator.set_source(blob(64, 0, 0)),
            lambda: animator.read("state"),
            animator.reset,
        ):
            with pytest.raises(BackendError, match=code) as caught:
                action()
            assert "start the program again" in caught.value.hint

    assert cuda.asked(refuses_all) == [], "a lost GPU is not asked again"
    animator.close()  # raises nothing
    machine.forget()


@pytest.mark.parametrize("backend", ["tensorrt", "ort-cuda"])
def test_a_frame_that_fails_is_waited_out_and_the_next_one_works(
    machine: Machine, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", "0")
    with begun(toy_bundle, 0, backend) as animator:
        animator.animate(blob(64, 0, 0), 1.0)
        machine.wrong["execute"] = "motion"
        with pytest.raises(BackendError, match=r"'motion'.*(the kernel refused|access$)"):
            animator.animate(blob(64, 0.2, 0), 2.0)
        assert not any(stream.queue for stream in machine.cuda.streams())
        machine.wrong.clear()
        found = animator.animate(blob(64, 0.3, 0), 2.0)  # the clock did not move
        assert levels_apart(found, blob(64, 0.3, 0)) <= 3


@pytest.mark.parametrize("call", ["not yet", *OF_CAPTURES])
def test_what_cannot_be_captured_is_tried_once_more_and_then_runs_plainly(
    machine: Machine, toy_bundle: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = machine.cuda
    backend: Any = open_backend("tensorrt", Bundle.open(toy_bundle))
    backend.run_frame()

    def fail_once() -> None:
        if call in OF_CAPTURES[1:]:
            cuda.fail(call, "cudaErrorStreamCaptureInvalidated")
        machine.wrong = {"capture" if call == "stage" else call: "generator"}
        asked = cuda.asked(backend.run_frame)
        assert "GraphLaunch" not in asked and cuda.done[-1] == "download", "it was made"
        assert ("StreamBeginCapture" in asked) == (call != "not yet")
        machine.wrong.clear()

    for _ in range(2):  # what succeeds in between is forgotten
        fail_once()
        assert cuda.asked(backend.run_frame)[-2:] == ["GraphLaunch", "StreamSynchronize"]
        backend._graphs.clear()
    assert not caplog.records
    fail_once()
    fail_once()
    for _ in range(2):
        assert "StreamBeginCapture" not in cuda.asked(backend.run_frame)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "not for every frame"
    backend.close()


def test_a_frame_is_not_captured_while_stages_are_opened(cuda: FakeCuda, toy_bundle: Path) -> None:
    animator = begun(toy_bundle, 1)
    with ThreadPoolExecutor(1) as other:
        other.submit(alone.acquire).result()
        for _ in range(3):  # which is not a failure
            animator.animate(blob(64, 0, 0))
        assert "StreamBeginCapture" not in cuda.calls
        other.submit(alone.release).result()
    animator.animate(blob(64, 0, 0))
    assert cuda.calls[-2:] == ["GraphLaunch", "StreamSynchronize"]
    animator.close()


CLOSING = [
    "StreamSynchronize", "GraphExecDestroy", *["EventDestroy"] * 6, "FreeHost", "Free",
    "StreamDestroy",
]  # fmt: skip


@pytest.mark.usefixtures("by_counting_alone")
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
@pytest.mark.parametrize("backend", ["tensorrt", "ort-cuda"])
def test_all_is_given_back_from_the_last_opened_to_the_first(
    machine: Machine, toy_bundle: Path, closed: bool, backend: str
) -> None:
    cuda, animator = machine.cuda, begun(toy_bundle, 3, backend)
    before = len(cuda.calls)
    if closed:
        animator.close()
        animator.close()
        assert animator.timings["motion"] == pytest.approx(2e-3), "readable after the end"
    del animator
    graph = [call for call in CLOSING if backend == "tensorrt" or "Graph" not in call]
    assert [call for call in cuda.calls[before:] if call != "EventElapsedTime"] == graph
    assert (cuda.leaks(), machine.alive, machine.violations) == ([], 0, [])


@pytest.mark.usefixtures("by_counting_alone")
@pytest.mark.parametrize("frames", [0, 3], ids=["none", "graph"])
@pytest.mark.parametrize("call", ["FreeHost", "StreamSynchronize"])
def test_dropping_raises_nothing_and_keeps_nothing_else(
    cuda: FakeCuda, toy_bundle: Path, frames: int, call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    animator = begun(toy_bundle, frames)
    cuda.fail(call, "cudaErrorInvalidValue")
    del animator
    assert capsys.readouterr().err == "", "a finaliser's errors are printed"
    assert cuda.leaks() == (["pinned memory"] if call == "FreeHost" else [])
    cuda.forget()


@pytest.mark.usefixtures("by_counting_alone")
def test_what_is_collected_while_another_is_captured_disturbs_nobody(
    machine: Machine, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, lost = machine.cuda.calls, begun(toy_bundle)
    lost.itself = lost  # type: ignore[attr-defined]
    gone = weakref.ref(lost)
    execute = fake_engines.FakeContext.execute_async_v3

    def collecting(self: Any, stream: int) -> bool:
        if machine.cuda.capturing():
            gc.collect()
        return execute(self, stream)

    monkeypatch.setattr(fake_engines.FakeContext, "execute_async_v3", collecting)
    del lost
    with begun(toy_bundle, 4):
        assert gone() is None and machine.alive == 5
        assert len(machine.cuda.streams()) == 2, "its own, and the default one"
        last = [len(calls) - calls[::-1].index(f"Stream{end}Capture") for end in ("Begin", "End")]
        assert "StreamDestroy" in calls[slice(*last)]
        assert calls.count("StreamBeginCapture") == 2, "neither had to be repeated"


PROGRAM = """
import atexit, os, sys
sys.path.insert(0, sys.argv[1])
import pytest
from fake_engines import Bound, install
from toy_bundle import blob

machine = install(pytest.MonkeyPatch())
atexit.register(lambda: print(*sorted(set(machine.cuda.leaks())), flush=True))
Bound.__del__ = lambda self, write=os.write: write(1, b"destroyed ")

from sonomime.runtime import Animator

animator = Animator.open(sys.argv[2], "tensorrt")
animator.set_source(blob(64, 0, 0))
for i in range(3):
    animator.animate(blob(64, 0, 0))
"""
FAILING = """
machine.cuda.fail("StreamSynchronize", "cudaErrorIllegalAddress")
with pytest.raises(Exception, match="IllegalAddress"):
    animator.animate(blob(64, 0, 0))
"""


@pytest.mark.parametrize(
    "ending", ["animator.itself = animator; del animator", FAILING], ids=["a cycle", "a lost GPU"]
)
def test_a_program_that_ends_without_closing(
    toy_bundle: Path, repository: Path, run_python: Callable[..., tuple[int, str, str]], ending: str
) -> None:
    """The driver takes back what is left: a daemon thread may still be at work on it, and the GPU
    may be lost."""
    ended = run_python(PROGRAM + ending, str(repository / "tests"), str(toy_bundle))
    assert ended == (0, "event executable memory pinned memory stream\n", "")
