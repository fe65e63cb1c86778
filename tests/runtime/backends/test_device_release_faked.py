"""What a backend holds of a GPU, played by the host, is given back: closed, dropped, forgotten."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_engines
import numpy as np
import pytest
from fake_engines import FakeTrt
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle

CLOSING = [
    "synchronise", "destroy_executable", *["destroy_event"] * 6, "free_pinned", "free",
    "destroy_stream",
]  # fmt: skip


@pytest.fixture
def by_counting_alone() -> Iterator[None]:
    """Whatever is let go of here went because nothing referred to it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def follow(animator: Animator, frames: int = 3) -> Any:
    animator.set_source(blob(64, 0, 0))
    return [animator.animate(blob(64, 0.1 * i, 0)) for i in range(frames)]


@pytest.mark.usefixtures("by_counting_alone")
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "dropped"])
def test_all_is_given_back_from_the_last_opened_to_the_first(
    trt: FakeTrt, toy_bundle: Path, closed: bool
) -> None:
    animator = Animator.open(toy_bundle, "tensorrt")
    follow(animator)
    timings, before = animator.timings, len(trt.device.calls)
    if closed:
        animator.close()
        animator.close()
    del animator
    assert [call for call in trt.device.calls[before:] if call != "elapsed"] == CLOSING
    assert trt.device.leaks() == [] and (trt.contexts, trt.engines) == (0, 0)
    assert trt.violations == [], "contexts go before the memory"
    assert timings["motion"] == pytest.approx(2e-3), "readable after the end"


@pytest.mark.usefixtures("by_counting_alone")
@pytest.mark.parametrize("frames", [0, 3], ids=["none", "graph"])
@pytest.mark.parametrize("call", ["free_pinned", "synchronise"])
def test_dropping_raises_nothing_and_keeps_nothing_else(
    trt: FakeTrt, toy_bundle: Path, frames: int, call: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = open_backend("tensorrt", Bundle.open(toy_bundle))
    for _ in range(frames):
        backend.run_frame()
    trt.device.fail(call, "cudaErrorInvalidValue")
    del backend
    assert capsys.readouterr().err == "", "a finaliser's errors are printed"
    assert trt.device.leaks() == (["pinned memory"] if call == "free_pinned" else [])
    trt.device.pins.clear()


@pytest.mark.usefixtures("by_counting_alone")
def test_what_is_collected_while_another_is_captured_disturbs_nobody(
    trt: FakeTrt, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Animator.open(toy_bundle, "tensorrt")
    follow(lost)
    lost.itself = lost  # type: ignore[attr-defined]
    gone = weakref.ref(lost)
    execute = fake_engines.FakeContext.execute_async_v3

    def collecting(self: Any, stream: int) -> bool:
        if trt.device.capturing():
            gc.collect()
        return execute(self, stream)

    monkeypatch.setattr(fake_engines.FakeContext, "execute_async_v3", collecting)
    with Animator.open(toy_bundle, "tensorrt", motion="absolute") as animator:
        del lost
        frames = follow(animator, 4)
        assert gone() is None and trt.contexts == 5
        assert len(trt.device.streams) == 2, "its own, and the default one"
        begin, end = (
            len(trt.device.calls) - trt.device.calls[::-1].index(call)
            for call in ("begin_capture", "end_capture")
        )
        assert "destroy_stream" in trt.device.calls[begin:end]
        assert trt.device.calls.count("begin_capture") == 2, "neither had to be repeated"
        for i, frame in enumerate(frames):
            assert np.abs(frame.astype(int) - blob(64, 0.1 * i, 0)).max() <= 3


PROGRAM = """
import atexit, os, sys
sys.path.insert(0, {tests!r})
import pytest
from fake_engines import FakeContext, install
from toy_bundle import blob

trt = install(pytest.MonkeyPatch())
atexit.register(lambda: print(*sorted(set(trt.device.leaks())), flush=True))
FakeContext.__del__ = lambda self, write=os.write: write(1, b"destroyed ")

from sonomime.runtime import Animator

animator = Animator.open({bundle!r}, "tensorrt")
animator.set_source(blob(64, 0, 0))
for i in range(3):
    animator.animate(blob(64, 0, 0))
{ending}
"""
LOST = """
trt.device.fail("synchronise", "cudaErrorIllegalAddress")
with pytest.raises(Exception, match="IllegalAddress"):
    animator.animate(blob(64, 0, 0))
"""
KEPT = "event executable memory pinned memory stream\n"
FIVE = "destroyed " * 5


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("del animator", FIVE + "\n"),
        ("animator.itself = animator; del animator", KEPT),
        (LOST, KEPT),
        ("trt.device.lost = 'cudaErrorIllegalAddress'", KEPT),
    ],
    ids=["dropped", "a cycle", "upon a lost GPU", "lost without our knowing"],
)
def test_a_program_that_ends_without_closing(
    toy_bundle: Path, repository: Path, ending: str, expected: str
) -> None:
    """The driver takes back what is left: a daemon thread may still be at work on it, and the GPU
    may be lost."""
    program = PROGRAM.format(tests=str(repository / "tests"), bundle=str(toy_bundle), ending=ending)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, run.stderr, run.stdout) == (0, "", expected)
