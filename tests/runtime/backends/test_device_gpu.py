"""On a real GPU: the device itself, the backends on it, arrays of torch, cupy and pycuda."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from composed_cases import LEVELS, speckle
from toy_bundle import blob

from sonomime.runtime import Animator
from sonomime.runtime.backends.cuda import open_device
from sonomime.runtime.compose import Composer
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.support.errors import BackendError

pytestmark = pytest.mark.gpu

GPU_BACKENDS = ("ort-cuda", "tensorrt", "rtx")
on_every_backend = pytest.mark.parametrize("name", GPU_BACKENDS)
with_and_without_graph = pytest.mark.parametrize("graph", ["1", "0"])


def open_on_gpu(*names: str, **options: Any) -> Animator:
    """The default bundle on the first of these backends that serves, or a skip that says why."""
    reasons = []
    for name in names or GPU_BACKENDS:
        try:
            return Animator.open(None, name, **options)
        except BackendError as error:
            reasons.append(f"{name} cannot serve here: {error.message}")
    pytest.skip("; ".join(reasons))


def cuda() -> Any:
    return importlib.import_module("cuda.bindings.runtime")


def pictures(animator: Animator, count: int = 8) -> list[Any]:
    size = animator.session.chain.image.size
    return [blob(size, -0.3 + 0.08 * i, 0.1, height=size, width=0.3) for i in range(count)]


def follow(animator: Animator) -> list[Any]:
    source, *driving = pictures(animator)
    animator.set_source(source)
    return [animator.animate(frame) for frame in driving]


def test_out_of_memory_and_a_gpu_that_is_not_there_leave_the_process_usable() -> None:
    device = open_device()
    with pytest.raises(BackendError, match=r"cudaErrorMemoryAllocation.*free on"):
        device.malloc(1 << 50, ExitStack())
    with pytest.raises(BackendError):
        open_device(int(cuda().cudaGetDeviceCount()[1]))
    with ExitStack() as release:
        device.malloc(1 << 20, release)


@on_every_backend
@with_and_without_graph
def test_frames_are_close_to_those_of_the_cpu(
    name: str, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    with open_on_gpu(name, smooth=True) as animator:
        found = follow(animator)
        assert all(seconds > 0 for seconds in animator.timings.values())
    with Animator.open(None, "ort-cpu", smooth=True) as animator:
        expected = follow(animator)
    assert levels_apart(np.array(found), np.array(expected)) <= 3
    assert np.abs(np.subtract(found, expected, dtype=int)).mean() < 0.1


@on_every_backend
@with_and_without_graph
def test_frames_composed_there_are_those_of_the_host(
    name: str, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    with open_on_gpu(name) as animator:
        if not animator.session.backend.can_compose:  # type: ignore[attr-defined]
            pytest.skip("runtime/lib has no library with the kernels: docs/gpu.md")
        layers = vars(animator.session.chain.layers).values()
        for picture in (speckle(800, 600), speckle(300, 400, 3)):
            animator.set_source(picture)
            composer = Composer(picture, animator.letterbox, picture.shape[1::-1])
            for frame in pictures(animator):
                found = animator.animate(frame, size="source")
                wanted = composer.compose(*(animator.read(layer) for layer in layers))
                assert levels_apart(found, wanted) <= LEVELS
                animator.animate(frame)
                assert levels_apart(animator.compose(), found) <= 1


def test_two_animators_at_once_do_not_disturb_each_other() -> None:
    with open_on_gpu() as one, open_on_gpu() as two:
        frames = pictures(one)
        one.set_source(frames[0])
        two.set_source(frames[-1])
        mixed = [(one.animate(f), two.animate(f)) for f in frames]
    with open_on_gpu() as alone:
        alone.set_source(frames[0])
        for frame, (first, _) in zip(frames, mixed, strict=True):
            assert np.array_equal(alone.animate(frame), first)


@on_every_backend
def test_a_program_that_ends_without_closing(
    name: str, run_python: Callable[..., tuple[int, str, str]]
) -> None:
    last = int(cuda().cudaGetDeviceCount()[1] or 1) - 1
    for device in {0, last}:
        open_on_gpu(name, device=device).close()
        # Nothing of another GPU's program is on the first one.
        ending = f"sys.exit({device} and driver.cuDevicePrimaryCtxGetState(0)[2])"
        program = (
            "import sys, numpy as np; from cuda.bindings import driver; "
            f"from sonomime.runtime import Animator; a = Animator.open(None, {name!r}, "
            f"device={device}); size = a.session.chain.image.size; "
            "image = np.zeros((size, size), np.uint8); a.set_source(image); "
            f"[a.animate(image) for _ in range(3)]; {ending}"
        )
        assert run_python(program)[0] == 0


@on_every_backend
def test_what_is_dropped_gives_its_memory_back(name: str) -> None:
    free = []
    for _ in range(4):  # what the libraries load for good, they have loaded after the first
        follow(open_on_gpu(name))
        free.append(int(cuda().cudaMemGetInfo()[1]))
    assert min(free[1:]) > max(free[1:]) - (8 << 20)


@on_every_backend
def test_frames_are_captured_while_another_thread_opens_and_drops(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = np.array(follow(open_on_gpu(name)))
    with ThreadPoolExecutor(1) as other:
        busy = other.submit(lambda: [follow(open_on_gpu(name)) for _ in range(3)])
        while not busy.done():
            assert levels_apart(np.array(follow(open_on_gpu(name))), frames) <= 3
        assert all(levels_apart(np.array(found), frames) <= 3 for found in busy.result())
    assert "without a CUDA graph" not in caplog.text


def torch_array(image: Any) -> Any:
    return pytest.importorskip("torch").from_numpy(image).cuda()


def torch_dlpack(image: Any) -> Any:
    """DLPack alone."""
    tensor = torch_array(image)

    class Packed:
        __dlpack_device__, __dlpack__, cpu = tensor.__dlpack_device__, tensor.__dlpack__, tensor.cpu

    return Packed()


def cupy_array(image: Any) -> Any:
    return pytest.importorskip("cupy").asarray(image)


def pycuda_array(image: Any) -> Any:
    pytest.importorskip("pycuda")
    importlib.import_module("pycuda.autoprimaryctx")  # the context that the runtime API uses too
    return importlib.import_module("pycuda.gpuarray").to_gpu(image)


@pytest.mark.parametrize("make", [torch_array, torch_dlpack, cupy_array, pycuda_array])
def test_arrays_of_other_libraries_go_in_and_out(make: Callable[[Any], Any]) -> None:
    with open_on_gpu() as animator:
        frames = pictures(animator)
        expected = follow(animator)
        animator.reset()
        animator.set_source(make(frames[0]))
        out = make(np.zeros_like(frames[0]))
        for frame, wanted in zip(frames[1:], expected, strict=True):
            assert animator.animate(make(frame), out=out) is out
            held = out.cpu().numpy() if hasattr(out, "cpu") else out.get()
            assert np.array_equal(held, wanted)


def test_work_of_torch_that_is_still_going_on_is_waited_for() -> None:
    torch = pytest.importorskip("torch")
    with open_on_gpu() as animator:
        frames = pictures(animator, 2)
        animator.set_source(frames[0])
        animator.set_reference(frames[0])
        expected = animator.animate(frames[1])
        for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
            slow = torch.zeros(4096, 4096, device="cuda")
            frame, ready = torch.zeros_like(torch_array(frames[1])), torch_array(frames[1])
            torch.cuda.synchronize()
            with torch.cuda.stream(stream):
                for _ in range(50):
                    slow = slow @ slow
                frame.copy_(ready)
                found = animator.animate(frame)
            assert np.array_equal(found, expected)
