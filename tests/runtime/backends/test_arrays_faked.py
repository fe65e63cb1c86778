"""Frames from and to arrays of other libraries: on the host, and on a GPU that the host plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_arrays import AlsoNumpy, CopiedByNumpy, OnGpu, OnHost, Packed, PackedAgain
from fake_device import FakeDevice
from fake_engines import FakeTrt
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends.arrays import device_array, on_device
from sonomime.runtime.backends.cuda import DEFAULT_STREAM
from sonomime.runtime.support.errors import BackendError, InputError


def planes(image: Any) -> Any:
    return image if image.ndim == 2 else image.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_written_to_an_array_of_numpy(tmp_path: Path, channels: int) -> None:
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    shape = (64, 64) if channels == 1 else (64, 64, 3)
    with Animator.open(folder, "ort-cpu", motion="absolute", threads=1) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = animator.animate(blob(64, 0.3, 0, channels))
        strided = np.zeros((64, 128, *shape[2:]), np.uint8)[:, ::2]
        for out in (np.zeros(shape, np.uint8), strided):
            assert animator.animate(blob(64, 0.3, 0, channels), out=out) is out
            assert np.array_equal(out, expected) and out.any()
        read_only = np.zeros(shape, np.uint8)
        read_only.flags.writeable = False
        for wrong in (np.zeros((64, 65), np.uint8), np.zeros(shape, np.float32), read_only):
            with pytest.raises(InputError):
                animator.animate(blob(64, 0, 0, channels), 9.0, out=wrong)
        animator.animate(blob(64, 0, 0, channels), 9.0)  # what failed did not move the clock


@pytest.mark.parametrize(("backend", "channels"), [("ort-cpu", 1), ("ort-cpu", 3), ("tensorrt", 1)])
def test_tensors_of_torch_on_the_host(
    trt: FakeTrt, tmp_path: Path, backend: str, channels: int
) -> None:
    torch = pytest.importorskip("torch")
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)

    def tensor(x: float) -> Any:
        return torch.from_numpy(np.ascontiguousarray(planes(blob(64, x, 0, channels))))

    with Animator.open(folder, backend, motion="absolute", threads=1) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = animator.animate(blob(64, 0.3, 0, channels))
        animator.set_source(tensor(0))
        assert np.array_equal(animator.animate(tensor(0.3)), expected)
        assert np.array_equal(animator.animate(tensor(0.3)[None]), expected)
        out = torch.zeros(planes(expected).shape, dtype=torch.uint8)
        assert animator.animate(tensor(0.3), out=out) is out
        assert np.array_equal(out.numpy(), planes(expected))
        for wrong in (
            torch.zeros(63, 64, dtype=torch.uint8),
            tensor(0).float(),
            torch.zeros(64, 64, dtype=torch.uint8, device="meta"),
            torch.zeros(64, 64, requires_grad=True),
        ):
            for given, target in ((wrong, None), (tensor(0), wrong)):
                with pytest.raises(InputError):
                    animator.animate(given, out=target)


@pytest.mark.parametrize("graph", ["1", "0"])
@pytest.mark.parametrize(
    ("kind", "channels"),
    [(lambda array: array, 1), (lambda array: array, 3), (Packed, 1), (PackedAgain, 3)],
    ids=["interface", "interface rgb", "dlpack 0", "dlpack 1 rgb"],
)
def test_frames_that_never_leave_the_gpu(
    trt: FakeTrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, graph: str,
    kind: Callable[[OnGpu], Any],
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    device = trt.device
    xs = [0.1 * i for i in range(6)]
    with Animator.open(folder, "ort-cpu", threads=1, smooth=True) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = [animator.animate(blob(64, x, 0.1, channels)) for x in xs]

    source = OnGpu(device, planes(blob(64, 0, 0, channels)))
    driving = OnGpu(device, planes(blob(64, 0, 0, channels)))
    out = OnGpu(device, np.zeros_like(driving.values))
    with Animator.open(folder, "tensorrt", smooth=True) as animator:
        animator.set_source(kind(source))
        begun = len(device.done)
        for x, wanted in zip(xs, expected, strict=True):
            driving.memory[...] = planes(blob(64, x, 0.1, channels))
            target = kind(out)
            assert animator.animate(kind(driving), out=target) is target
            assert np.array_equal(out.memory, planes(wanted))
        # Nothing comes down, and of what goes up the driving frame is not a part.
        assert "download" not in device.done[begun:]
        assert np.array_equal(animator.read("frame")[0].squeeze(), planes(expected[-1]))
        assert np.array_equal(animator.read("driving_frame")[0].squeeze(), driving.memory)
        # Anything can follow anything.
        for i, x in enumerate(xs):
            driving.memory[...] = planes(blob(64, x, 0.1, channels))
            frame = kind(driving) if i % 2 else blob(64, x, 0.1, channels)
            if i % 3:
                animator.animate(frame, out=kind(out))
                made = out.memory
            else:
                made = planes(animator.animate(frame))
            again = animator.read("frame")[0].squeeze()
            assert np.array_equal(made, again) and made.any()
            held = animator.read("driving_frame")[0].squeeze()
            assert np.array_equal(held, planes(blob(64, x, 0.1, channels)))
        assert device.calls.count("begin_capture") == (4 if graph == "1" else 0)
    for array in (source, driving, out):
        array.free()


def test_the_producer_s_stream_is_waited_for(trt: FakeTrt, toy_bundle: Path) -> None:
    device = trt.device
    with Animator.open(toy_bundle, "tensorrt", motion="absolute") as animator:
        animator.set_source(blob(64, 0, 0))
        frame = OnGpu(device, np.zeros((64, 64), np.uint8))
        out = OnGpu(device, np.zeros((64, 64), np.uint8))

        def late() -> None:
            frame.memory[...] = blob(64, 0.4, 0)

        # Version 2 says nothing of streams: whatever the default stream has to do is done first.
        device.enqueue(DEFAULT_STREAM, "late", late)
        animator.animate(frame, out=out)
        assert np.abs(out.memory.astype(int) - blob(64, 0.4, 0)).max() <= 3

        theirs = device.stream()
        for stream, waits in ((None, 0), (theirs, 1), (1, 1)):
            frame.interface = {"version": 3, "stream": stream}
            before = len(device.calls)
            animator.animate(frame)
            asked = [call for call in device.calls[before:] if call.startswith("wait")]
            assert len(asked) == waits

        class Both(Packed):
            """As torch's and cupy's, of which the first tells no stream by its interface."""

            __cuda_array_interface__ = frame.__cuda_array_interface__

        both = Both(frame)
        animator.animate(both)
        assert both.said == [animator.session.backend._stream]  # type: ignore[attr-defined]
        device.destroy_stream(theirs)
        frame.free()
        out.free()


def test_arrays_that_do_not_fit(trt: FakeTrt, toy_bundle: Path) -> None:
    device = trt.device
    good = OnGpu(device, np.zeros((64, 64), np.uint8))
    on_host, another = np.zeros((64, 64), np.uint8), 1 << 40
    device.elsewhere[another] = 1
    cases: list[tuple[Any, str]] = [
        (OnGpu(device, np.zeros((32, 32), np.uint8)), r"\[32, 32\].*\[64, 64\]"),
        (OnGpu(device, np.zeros((64, 64), np.float32)), "uint8"),
        (OnGpu(device, good.values, strides=(128, 1)), "contiguous"),
        (OnGpu(device, good.values, strides=(1,)), "contiguous"),
        (OnGpu(device, good.values, data=(0, False)), "no memory"),
        (OnGpu(device, good.values, mask=good), "mask"),
        (OnGpu(device, good.values, data=None), "TypeError"),
        (OnGpu(device, good.values, data=(on_host.ctypes.data, False)), "no GPU memory"),
        (OnGpu(device, good.values, data=(another, False)), "GPU 1"),
        (PackedAgain(good, major=2), r"DLPack 2\.1"),
        (PackedAgain(good, bits=16), "uint8"),
        (Packed(good, index=1), "GPU 1"),
        (Packed(good, bits=16), "uint8"),
        (Packed(good, strides=(1, 64)), "contiguous"),
        *((nothing, "") for nothing in ("text", [1, 2], 3)),
    ]
    locked = [OnGpu(device, good.values, data=(good.address, True))]
    locked += [PackedAgain(good, flags=flags) for flags in (1, 2, 3)]
    with Animator.open(toy_bundle, "tensorrt") as animator:
        animator.set_source(good)
        for array, message in cases:
            with pytest.raises(InputError, match=message or None):
                animator.animate(array)
            with pytest.raises(InputError, match=message or None):
                animator.animate(good, out=array)
        for each in locked:
            animator.animate(each)
            with pytest.raises(InputError, match=r"read-only|a copy"):
                animator.animate(good, out=each)
        for array in (good, Packed(good, strides=(64, 1))):
            assert animator.animate(array).shape == (64, 64)
    device.blocks.clear()


def test_arrays_are_asked_on_the_model_s_gpu(trt: FakeTrt, toy_bundle: Path) -> None:
    """torch hands nothing over while its thread is at work on another GPU than the tensor's."""
    device = trt.device

    class FromItsGpu(Packed):
        def __dlpack__(self, stream: int) -> Any:
            if device.thread.gpu != self.index:
                raise BufferError("Can't export tensors on a different CUDA device index.")
            return super().__dlpack__(stream)

    frame = OnGpu(device, blob(64, 0, 0))
    device.thread.gpu = 1
    with Animator.open(toy_bundle, "tensorrt") as animator:
        animator.set_source(FromItsGpu(frame))
        assert animator.animate(FromItsGpu(frame)).any() and device.thread.gpu == 1
    device.thread.gpu = 0
    frame.free()


def test_capsules_as_numpy_and_torch_make_them() -> None:
    """The host's memory, which these two make capsules of here, with the fields of a GPU's."""

    class SaidToBeOnGpu:
        def __init__(self, array: Any) -> None:
            self.array = array

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, stream: int, max_version: tuple[int, int] | None = None) -> Any:
            return self.array.__dlpack__(max_version=max_version)

    class BeforeVersions(SaidToBeOnGpu):
        def __dlpack__(self, stream: int) -> Any:  # type: ignore[override]
            return self.array.__dlpack__()

    torch = pytest.importorskip("torch")
    pytest.importorskip("numpy", minversion="2.1", reason="its capsules have no version before 2.1")
    memory = np.zeros((5, 3, 4), np.uint8)
    read_only = memory[2:]
    read_only.flags.writeable = False
    device: Any = FakeDevice()
    for kind in (SaidToBeOnGpu, BeforeVersions):
        for array in (memory[2:], torch.from_numpy(memory)[2:]):
            found = device_array(kind(array), "it", device, 7, writable=True)
            assert found.address == memory.ctypes.data + 24 and found.shape == (3, 3, 4)
    assert device_array(SaidToBeOnGpu(read_only), "it", device, 7).nbytes == 36
    with pytest.raises(InputError, match="it is read-only"):
        device_array(SaidToBeOnGpu(read_only), "it", device, 7, writable=True)


def test_arrays_of_which_dlpack_does_not_say_whether_they_can_be_written_to(
    toy_bundle: Path,
) -> None:
    with Animator.open(toy_bundle, "ort-cpu", motion="absolute", threads=1) as animator:
        animator.set_source(blob(64, 0, 0))
        out = AlsoNumpy(np.zeros((64, 64), np.uint8))
        assert animator.animate(OnHost(blob(64, 0.3, 0)), out=out) is out
        assert np.abs(out.values.astype(int) - blob(64, 0.3, 0)).max() <= 3
        view = np.zeros((64, 64), np.uint8)
        locked = view.view()
        locked.flags.writeable = False
        for array in (OnHost(view), CopiedByNumpy(view), AlsoNumpy(locked)):
            with pytest.raises(InputError):
                animator.animate(blob(64, 0, 0), out=array)


def test_arrays_on_a_gpu_want_a_backend_there(trt: FakeTrt, toy_bundle: Path) -> None:
    class WantsGradient(Packed):
        """As a tensor of torch that does."""

        @property
        def __cuda_array_interface__(self) -> Any:
            raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")

    array = OnGpu(trt.device, np.zeros((64, 64), np.uint8))
    assert on_device(array) and on_device(Packed(array)) and not on_device(array.values)
    assert on_device(WantsGradient(array))
    with Animator.open(toy_bundle, "ort-cpu", threads=1) as animator:
        for given in (array, Packed(array)):
            with pytest.raises(BackendError, match="GPU"):
                animator.set_source(given)
        animator.set_source(array.values)
        with pytest.raises(BackendError, match="GPU"):
            animator.animate(array.values, out=array)
    array.free()


def test_what_was_lent_is_given_back_with_the_frame(trt: FakeTrt, toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, "tensorrt") as animator:
        backend: Any = animator.session.backend
        frame = OnGpu(trt.device, np.zeros((64, 64), np.uint8))
        animator.set_source(frame)
        animator.animate(frame, out=frame)
        assert backend._in_use == []
        trt.device.fail("synchronise", "cudaErrorInvalidValue")
        with pytest.raises(BackendError):
            animator.animate(frame, out=frame)
        assert backend._in_use == [] and backend._taken is None
        frame.free()
