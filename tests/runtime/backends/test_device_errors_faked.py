"""What goes wrong on a GPU that the host plays: out of memory anywhere, a lost context, what cannot
be captured."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_engines import FakeTrt
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.backends.cuda_errors import device_error
from sonomime.runtime.backends.device_backend import alone
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError


def refusal(folder: Path) -> BackendError:
    """Why a bundle does not open; without the trace, whose variables would live on."""
    with pytest.raises(BackendError) as caught:
        Animator.open(folder, "tensorrt")
    return type(caught.value)(caught.value.message, caught.value.hint)


def works(folder: Path) -> None:
    with Animator.open(folder, "tensorrt", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        for x in (0.1, 0.2, 0.3):
            found = animator.animate(blob(64, x, 0))
            assert np.abs(found.astype(int) - blob(64, x, 0)).max() <= 3


@pytest.mark.parametrize(
    ("call", "times"),
    [("stream", 1), ("malloc", 1), ("pinned", 1), ("memset", 1), ("event", 6), ("context", 5),
     ("synchronise", 1)],
)  # fmt: skip
def test_whatever_fails_at_opening_everything_is_given_back(
    trt: FakeTrt, toy_bundle: Path, call: str, times: int
) -> None:
    for after in range(times):
        trt.device.fail(call, after=after)
        error = refusal(toy_bundle)
        assert "cudaErrorMemoryAllocation" in error.message and "nvidia-smi" in error.hint
        trt.gone()
    trt.device.fail(call, after=times)  # one more than there are: it was the last
    with Animator.open(toy_bundle, "tensorrt"):
        trt.device.failures.clear()
    works(toy_bundle)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("without_room", ("'generator'", "1000 of 1000 MB are free", "requested 1 GiB")),
        ("refused", ("'generator'", "version tag does not match")),
        ("refused_addresses", ("'deformation'",)),
        ("missing", ("'generator'",)),
    ],
)
def test_what_tensorrt_refuses(
    trt: FakeTrt, toy_bundle: Path, what: str, words: tuple[str, ...]
) -> None:
    setattr(trt, what, {"generator", "deformation"})
    error = refusal(toy_bundle)
    assert all(word in error.message for word in words) and error.exit_code == 4
    assert ("nvidia-smi" if what == "without_room" else "sonomime build") in error.hint
    trt.gone()
    setattr(trt, what, set())
    works(toy_bundle)


@pytest.mark.parametrize(
    ("frames", "call", "code"),
    [
        (0, "synchronise", "cudaErrorIllegalAddress"),  # a plain frame
        (1, "synchronise", "cudaErrorIllegalAddress"),  # one that is captured
        (3, "synchronise", "cudaErrorIllegalAddress"),  # a launch of the graph
        (1, "instantiate", "cudaErrorLaunchFailure"),
        (1, "motion", "cudaErrorLaunchFailure"),  # TensorRT only says that it failed
    ],
)
def test_a_lost_context_is_reported_at_once_and_ever_after(
    trt: FakeTrt, toy_bundle: Path, frames: int, call: str, code: str
) -> None:
    animator = Animator.open(toy_bundle, "tensorrt")
    animator.set_source(blob(64, 0, 0))
    for _ in range(frames):
        animator.animate(blob(64, 0, 0))
    stage = call == "motion"
    trt.failing = {"motion"} if stage else set()
    trt.device.fail("synchronise" if stage else call, code)
    words = f"(?s)'motion'.*the kernel refused.*{code}" if stage else code
    with pytest.raises(BackendError, match=words):
        animator.animate(blob(64, 0, 0))
    trt.failing, before = set(), len(trt.device.calls)
    for action in (
        lambda: animator.animate(blob(64, 0, 0)),
        lambda: animator.set_source(blob(64, 0, 0)),
        lambda: animator.read("state"),
        animator.reset,
    ):
        with pytest.raises(BackendError, match=code) as caught:
            action()
        assert "start the program again" in caught.value.hint
    assert len(trt.device.calls) == before, "a lost GPU is not asked again"
    animator.close()  # raises nothing
    trt.forget()


def test_a_frame_that_fails_is_waited_out_and_the_next_one_works(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", "0")
    with Animator.open(toy_bundle, "tensorrt", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        animator.animate(blob(64, 0, 0), 1.0)
        trt.failing = {"motion"}
        with pytest.raises(BackendError, match=r"'motion'.*the kernel refused"):
            animator.animate(blob(64, 0.2, 0), 2.0)
        assert not any(stream.queue for stream in trt.device.streams.values())
        trt.failing = set()
        found = animator.animate(blob(64, 0.3, 0), 2.0)  # the clock did not move
        assert np.abs(found.astype(int) - blob(64, 0.3, 0)).max() <= 3


CAPTURING = ["stage", "begin_capture", "end_capture", "instantiate"]


@pytest.mark.parametrize("call", ["asked", *CAPTURING])
def test_what_cannot_be_captured_runs_plainly_and_says_so(
    trt: FakeTrt, toy_bundle: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    if call == "asked":
        trt.not_yet_capturable = {"motion"}
    elif call == "stage":
        trt.uncapturable = {"generator"}
    else:
        for _ in range(2):
            trt.device.fail(call, "cudaErrorStreamCaptureInvalidated")
    works(toy_bundle)
    assert [record.levelname for record in caplog.records] == ["WARNING"], "not for every frame"
    assert "launch" not in trt.device.calls
    assert trt.device.calls.count("begin_capture") == (0 if call == "asked" else 2)


@pytest.mark.parametrize("call", CAPTURING)
def test_a_capture_that_failed_once_is_tried_once_more(
    trt: FakeTrt, toy_bundle: Path, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    device = trt.device
    backend = open_backend("tensorrt", Bundle.open(toy_bundle))
    backend.run_frame()
    for _ in range(2):  # what succeeds in between is forgotten
        if call == "stage":
            trt.uncapturable = {"generator"}
        else:
            device.fail(call, "cudaErrorStreamCaptureInvalidated")
        before, begun = len(device.calls), len(device.done)
        backend.run_frame()
        assert "launch" not in device.calls[before:]
        assert device.done[begun:][-1] == "download", "the frame was made all the same"
        trt.uncapturable = set()
        backend.run_frame()
        assert device.calls[-4:] == ["end_capture", "instantiate", "launch", "synchronise"]
        backend._graphs.clear()  # type: ignore[attr-defined]
    assert not caplog.records
    backend.close()


def test_a_frame_is_not_captured_while_stages_are_opened(trt: FakeTrt, toy_bundle: Path) -> None:
    backend = open_backend("tensorrt", Bundle.open(toy_bundle))
    backend.run_frame()
    with ThreadPoolExecutor(1) as other:
        other.submit(alone.acquire).result()
        for _ in range(3):  # which is not a failure
            backend.run_frame()
        assert "begin_capture" not in trt.device.calls
        other.submit(alone.release).result()
    backend.run_frame()
    assert trt.device.calls[-2:] == ["launch", "synchronise"]
    backend.close()


@pytest.mark.parametrize(
    ("code", "cure", "lost"),
    [
        ("cudaErrorMemoryAllocation", "nvidia-smi", False),
        ("cudaErrorInsufficientDriver", "NVIDIA driver", False),
        ("cudaErrorNoDevice", "--gpus all", False),
        ("cudaErrorLaunchFailure", "start the program again", True),
        ("cudaErrorSomethingNew", "sonomime doctor", False),
    ],
)
def test_codes_have_cures(code: str, cure: str, lost: bool) -> None:
    error = device_error(code, "it says", "doing something")
    assert code in error.message and cure in error.hint
    assert error.lost == lost and error.exit_code == 4
    again = pickle.loads(pickle.dumps(error))
    assert (again.message, again.hint) == (error.message, error.hint)
