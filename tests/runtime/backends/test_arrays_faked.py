"""Frames from and to arrays of other libraries: on the host, and on a GPU that the host plays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_arrays import AlsoNumpy, OnGpu, OnHost, Packed
from fake_cuda import DEFAULT_STREAM, FakeCuda
from fake_engines import Machine
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends.arrays import device_array, on_device
from sonomime.runtime.backends.cuda import open_device
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.support.errors import BackendError, InputError


@pytest.fixture
def cuda(machine: Machine) -> Iterator[FakeCuda]:
    yield machine.cuda
    for address, _ in machine.cuda.blocks():  # the arrays'
        machine.cuda.Free(address)


def planes(image: Any) -> Any:
    return image if image.ndim == 2 else image.transpose(2, 0, 1)


def black(*shape: int) -> Any:
    return np.zeros(shape or (64, 64), np.uint8)


def locked(array: Any) -> Any:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(("backend", "channels"), [("ort-cpu", 1), ("ort-cpu", 3), ("tensorrt", 1)])
def test_arrays_of_numpy_and_torch_on_the_host(
    cuda: FakeCuda, tmp_path: Path, backend: str, channels: int
) -> None:
    torch = pytest.importorskip("torch")
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    shape = (64, 64) if channels == 1 else (64, 64, 3)

    def tensor(x: float) -> Any:
        return torch.from_numpy(np.ascontiguousarray(planes(blob(64, x, 0, channels))))

    with Animator.open(folder, backend, motion="absolute", threads=1) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = animator.animate(blob(64, 0.3, 0, channels))
        for out in (black(*shape), black(64, 128, *shape[2:])[:, ::2]):
            assert animator.animate(blob(64, 0.3, 0, channels), out=out) is out
            assert np.array_equal(out, expected) and out.any()
        animator.set_source(tensor(0))
        assert np.array_equal(animator.animate(tensor(0.3)), expected)
        assert np.array_equal(animator.animate(tensor(0.3)[None]), expected)
        out = torch.zeros(planes(expected).shape, dtype=torch.uint8)
        assert animator.animate(tensor(0.3), out=out) is out
        assert np.array_equal(out.numpy(), planes(expected))
        for wrong in (black(64, 65), np.zeros(shape, np.float32), locked(black(*shape))):
            with pytest.raises(InputError):
                animator.animate(blob(64, 0, 0, channels), 9.0, out=wrong)
        animator.animate(blob(64, 0, 0, channels), 9.0)  # what failed did not move the clock
        for wrong in (
            torch.zeros(63, 64, dtype=torch.uint8),
            tensor(0).float(),
            torch.zeros(64, 64, dtype=torch.uint8, device="meta"),
            torch.zeros(64, 64, requires_grad=True),
        ):
            for given, target in ((wrong, None), (tensor(0), wrong)):
                with pytest.raises(InputError):
                    animator.animate(given, out=target)


def test_arrays_of_which_dlpack_does_not_say_whether_they_can_be_written_to(
    toy_bundle: Path,
) -> None:
    class CopiedByNumpy(OnHost):
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return self.values.copy()

    with Animator.open(toy_bundle, "ort-cpu", motion="absolute", threads=1) as animator:
        animator.set_source(blob(64, 0, 0))
        out = AlsoNumpy(black())
        assert animator.animate(OnHost(blob(64, 0.3, 0)), out=out) is out
        assert levels_apart(out.values, blob(64, 0.3, 0)) <= 3
        for array in (OnHost(black()), CopiedByNumpy(black()), AlsoNumpy(locked(black()))):
            with pytest.raises(InputError):
                animator.animate(blob(64, 0, 0), out=array)


@pytest.mark.parametrize(
    ("graph", "major", "channels"),
    [("1", None, 1), ("0", None, 3), ("0", 0, 1), ("1", 1, 3)],  # None: __cuda_array_interface__
)
def test_frames_that_never_leave_the_gpu(
    cuda: FakeCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, graph: str,
    major: int | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    frames = [blob(64, 0.1 * i, 0.1, channels) for i in range(6)]
    with Animator.open(folder, "ort-cpu", threads=1, smooth=True) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = [animator.animate(frame) for frame in frames]

    def kind(array: OnGpu) -> Any:
        return array if major is None else Packed(array, major=major)

    source = OnGpu(cuda, planes(blob(64, 0, 0, channels)))
    driving, out = (OnGpu(cuda, np.zeros_like(source.values)) for _ in range(2))
    with Animator.open(folder, "tensorrt", smooth=True) as animator:

        def held(tensor: str) -> Any:
            return animator.read(tensor)[0].squeeze()

        animator.set_source(kind(source))
        begun = len(cuda.done)
        for frame, wanted in zip(frames, expected, strict=True):
            driving.memory[...] = planes(frame)
            target = kind(out)
            assert animator.animate(kind(driving), out=target) is target
            assert np.array_equal(out.memory, planes(wanted))
        # Nothing comes down, and of what goes up the driving frame is not a part.
        assert "download" not in cuda.done[begun:]
        assert np.array_equal(held("frame"), planes(expected[-1]))
        assert np.array_equal(held("driving_frame"), driving.memory)
        for i, frame in enumerate(frames):  # anything can follow anything
            driving.memory[...] = planes(frame)
            given = kind(driving) if i % 2 else frame
            if i % 3:
                animator.animate(given, out=kind(out))
            made = out.memory if i % 3 else planes(animator.animate(given))
            assert np.array_equal(made, held("frame")) and made.any()
            assert np.array_equal(held("driving_frame"), planes(frame))
        assert cuda.calls.count("StreamBeginCapture") == (4 if graph == "1" else 0)


def test_the_producer_s_stream_is_waited_for(cuda: FakeCuda, toy_bundle: Path) -> None:
    frame, out = OnGpu(cuda, black()), OnGpu(cuda, black())
    with Animator.open(toy_bundle, "tensorrt", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))

        def late() -> None:
            frame.memory[...] = blob(64, 0.4, 0)

        # Version 2 says nothing of streams: whatever the default stream has to do is done first.
        cuda.enqueue(DEFAULT_STREAM, "late", late)
        animator.animate(frame, out=out)
        assert levels_apart(out.memory, blob(64, 0.4, 0)) <= 3
        theirs = cuda.StreamCreateWithFlags(1)
        for stream, waits in ((None, 0), (theirs, 1), (1, 1)):
            frame.interface = {"version": 3, "stream": stream}
            asked = cuda.asked(lambda: animator.animate(frame))
            assert asked.count("StreamWaitEvent") == waits

        class Both(Packed):
            """As torch's and cupy's, of which the first tells no stream by its interface."""

            __cuda_array_interface__ = frame.__cuda_array_interface__

        both = Both(frame)
        animator.animate(both)
        assert both.said == [animator.session.backend._stream]  # type: ignore[attr-defined]
    cuda.StreamDestroy(theirs)


def test_arrays_that_do_not_fit(cuda: FakeCuda, toy_bundle: Path) -> None:
    good = OnGpu(cuda, black())
    cuda.elsewhere = {1 << 40: (2, 1), 1 << 41: (3, 1)}  # another GPU's, and everybody's
    cases: list[tuple[Any, str]] = [
        (OnGpu(cuda, black(32, 32)), r"\[32, 32\].*\[64, 64\]"),
        (OnGpu(cuda, np.zeros((64, 64), np.float32)), "uint8"),
        (Packed(good, major=2), r"DLPack 2\.1"),
        (Packed(good, major=1, bits=16), "uint8"),
        (Packed(good, index=1), "GPU 1"),
        (Packed(good, bits=16), "uint8"),
        (Packed(good, strides=(1, 64)), "contiguous"),
        *((nothing, "") for nothing in ("text", [1, 2], 3)),
    ]
    for facts, message in (
        ({"strides": (128, 1)}, "contiguous"),
        ({"strides": (1,)}, "contiguous"),
        ({"data": (0, False)}, "no memory"),
        ({"mask": good}, "mask"),
        ({"data": None}, "TypeError"),
        ({"data": (good.values.ctypes.data, False)}, "no GPU memory"),
        ({"data": (1 << 40, False)}, "GPU 1"),
    ):
        cases.append((OnGpu(cuda, good.values, **facts), message))  # type: ignore[arg-type]
    fixed = [OnGpu(cuda, good.values, data=(good.address, True))]
    fixed += [Packed(good, major=1, flags=flags) for flags in (1, 2, 3)]
    with Animator.open(toy_bundle, "tensorrt") as animator:
        animator.set_source(good)
        for array, message in cases:
            for given, target in ((array, None), (good, array)):
                with pytest.raises(InputError, match=message or None):
                    animator.animate(given, out=target)
        for each in fixed:
            animator.animate(each)
            with pytest.raises(InputError, match=r"read-only|a copy"):
                animator.animate(good, out=each)
        for array in (good, Packed(good, strides=(64, 1))):
            assert animator.animate(array).shape == (64, 64)
        # What was lent is given back with the frame, also with one that fails.
        backend: Any = animator.session.backend
        managed = OnGpu(cuda, good.values, data=(1 << 41, False))
        assert backend.adopt(managed, "it").address == 1 << 41
        animator.animate(good, out=good)
        assert backend._in_use == []
        cuda.fail("StreamSynchronize", "cudaErrorInvalidValue")
        with pytest.raises(BackendError):
            animator.animate(good, out=good)
        assert backend._in_use == [] and backend._taken is None


def test_frames_and_arrays_from_a_thread_that_works_on_another_gpu(
    cuda: FakeCuda, toy_bundle: Path
) -> None:
    """torch hands nothing over while its thread is at work on another GPU than the tensor's."""

    class FromItsGpu(Packed):
        def __dlpack__(self, stream: int, **options: Any) -> Any:
            if cuda.current != self.index:
                raise BufferError("Can't export tensors on a different CUDA device index.")
            return super().__dlpack__(stream, **options)

    frame = OnGpu(cuda, blob(64, 0, 0))
    cuda.cudaSetDevice(1)
    with Animator.open(toy_bundle, "tensorrt", smooth=True) as animator:
        animator.set_source(FromItsGpu(frame))
        for _ in range(3):
            assert animator.animate(FromItsGpu(frame)).any() and cuda.current == 1
        assert animator.read("state").any() and animator.timings["motion"] > 0
    assert cuda.calls.count("GraphLaunch") == 2 and cuda.current == 1


def test_capsules_as_numpy_and_torch_make_them(cuda: FakeCuda) -> None:
    """The host's memory, which these two make capsules of here, with the fields of a GPU's."""

    class OnGpuAsItSays(OnHost):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, *, stream: int, **options: Any) -> Any:  # type: ignore[override]
            return self.values.__dlpack__(**options)

    torch = pytest.importorskip("torch")
    pytest.importorskip("numpy", minversion="2.1", reason="its capsules have no version before 2.1")
    memory, device = black(5, 3, 4), open_device()
    for array in (memory[2:], torch.from_numpy(memory)[2:]):
        found = device_array(OnGpuAsItSays(array), "it", device, 7, writable=True)
        assert found.address == memory.ctypes.data + 24 and found.shape == (3, 3, 4)
    read_only = OnGpuAsItSays(locked(memory[2:]))
    assert device_array(read_only, "it", device, 7).nbytes == 36
    with pytest.raises(InputError, match="it is read-only"):
        device_array(read_only, "it", device, 7, writable=True)


def test_arrays_on_a_gpu_want_a_backend_there(cuda: FakeCuda, toy_bundle: Path) -> None:
    class WantsGradient(Packed):
        """As a tensor of torch that does."""

        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")

    array = OnGpu(cuda, black())
    assert not on_device(array.values)
    with Animator.open(toy_bundle, "ort-cpu", threads=1) as animator:
        for given in (array, Packed(array), WantsGradient(array)):
            assert on_device(given)
            with pytest.raises(BackendError, match="GPU"):
                animator.set_source(given)
        animator.set_source(array.values)
        with pytest.raises(BackendError, match="GPU"):
            animator.animate(array.values, out=array)
