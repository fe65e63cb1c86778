"""Frames that come from, and go to, arrays of other libraries: on the host, and on the GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_engines import FakeTrt, install
from toy_bundle import blob, make_toy_bundle

from sonomime.runtime import Animator
from sonomime.runtime.backends.arrays import on_device
from sonomime.runtime.backends.cuda import DEFAULT_STREAM
from sonomime.runtime.errors import BackendError, InputError


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTrt]:
    fake = install(monkeypatch)
    yield fake
    fake.gone()


class OnGpu:
    """An array on the fake GPU, as cupy's and pycuda's are; `interface` overrides what it says."""

    def __init__(self, device: FakeDevice, values: Any, **interface: Any) -> None:
        self.values = np.ascontiguousarray(values)
        self.device, self.interface = device, interface
        self.address = device.malloc(self.values.nbytes)
        self.memory = device.block(self.address).view(self.values.dtype).reshape(self.values.shape)
        self.memory[...] = self.values

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        facts = {
            "shape": self.values.shape, "typestr": self.values.dtype.str,
            "data": (self.address, False), "version": 2,
        }  # fmt: skip
        return facts | self.interface

    def free(self) -> None:
        self.device.free(self.address)


class Managed(ctypes.Structure):
    """DLManagedTensor of dlpack.h, written down once more."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int), ("device_id", ctypes.c_int),
        ("ndim", ctypes.c_int), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class Packed:
    """The same by DLPack alone; `said` is what it was asked for."""

    def __init__(
        self, array: OnGpu, index: int = 0, bits: int = 8, strides: tuple[int, ...] | None = None
    ) -> None:
        self.array, self.index, self.said = array, index, []  # type: tuple[Any, int, list[Any]]
        shape = array.values.shape
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.strides = (ctypes.c_int64 * len(shape))(*strides) if strides else None
        self.managed = Managed(
            array.address - 16, 2, index, len(shape), 1, bits, 1, ctypes.addressof(self.shape),
            ctypes.addressof(self.strides) if self.strides else None, 16, None, None,
        )  # fmt: skip

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.index

    def __dlpack__(self, stream: int) -> Any:
        self.said.append(stream)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype, make.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        return make(ctypes.addressof(self.managed), b"dltensor", None)


class WantsGradient(Packed):
    """As a tensor of torch that does."""

    @property
    def __cuda_array_interface__(self) -> Any:
        raise RuntimeError("Can't get __cuda_array_interface__ on Variable that requires grad")

    def __dlpack__(self, stream: int) -> Any:
        raise BufferError("Can't export tensors that require gradient")


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
            with pytest.raises(InputError, match="the array to write to is"):
                animator.animate(blob(64, 0, 0, channels), 9.0, out=wrong)
        animator.animate(blob(64, 0, 0, channels), 9.0)  # what failed did not move the clock


@pytest.mark.parametrize("backend", ["ort-cpu", "tensorrt"])
@pytest.mark.parametrize("channels", [1, 3])
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
        with pytest.raises(InputError, match=r"uint8 \[63, 64\]") as caught:
            animator.animate(torch.zeros(63, 64, dtype=torch.uint8))
        assert "only numpy images are letterboxed" in caught.value.hint
        with pytest.raises(InputError, match="float32"):
            animator.animate(tensor(0).float())


@pytest.mark.parametrize("graph", ["1", "0"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["interface", "dlpack"])
def test_frames_that_never_leave_the_gpu(
    trt: FakeTrt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, graph: str,
    kind: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("SONOMIME_CUDA_GRAPH", graph)
    folder = make_toy_bundle(tmp_path / "toy", channels=channels)
    device = trt.device
    xs = [0.1 * i for i in range(6)]
    with Animator.open(folder, "ort-cpu", threads=1, smooth=True) as animator:
        animator.set_source(blob(64, 0, 0, channels))
        expected = [animator.animate(blob(64, x, 0.1, channels)) for x in xs]

    def give(array: OnGpu) -> Any:
        return array if kind == "interface" else Packed(array)

    source = OnGpu(device, planes(blob(64, 0, 0, channels)))
    driving = OnGpu(device, planes(blob(64, 0, 0, channels)))
    out = OnGpu(device, np.zeros_like(driving.values))
    with Animator.open(folder, "tensorrt", smooth=True) as animator:
        animator.set_source(give(source))
        begun = len(device.done)
        for x, wanted in zip(xs, expected, strict=True):
            driving.memory[...] = planes(blob(64, x, 0.1, channels))
            target = give(out)
            assert animator.animate(give(driving), out=target) is target
            assert np.array_equal(out.memory, planes(wanted))
        # Nothing comes down, and of what goes up the driving frame is not a part.
        assert "download" not in device.done[begun:]
        assert device.calls.count("synchronise") < 30
        assert np.array_equal(animator.read("frame")[0].squeeze(), planes(expected[-1]))
        assert np.array_equal(animator.read("driving_frame")[0].squeeze(), driving.memory)
        # Anything can follow anything.
        for i, x in enumerate(xs):
            driving.memory[...] = planes(blob(64, x, 0.1, channels))
            frame = give(driving) if i % 2 else blob(64, x, 0.1, channels)
            if i % 3:
                animator.animate(frame, out=give(out))
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
        packed = Packed(frame)
        animator.animate(packed)
        assert packed.said == [animator.backend._stream]  # type: ignore[attr-defined]

        class Both(Packed):
            """As torch's and cupy's, of which the first tells no stream by its interface."""

            __cuda_array_interface__ = frame.__cuda_array_interface__

        both = Both(frame)
        animator.animate(both)
        assert len(both.said) == 1
        device.destroy_stream(theirs)
        frame.free()
        out.free()


def test_arrays_that_do_not_fit(trt: FakeTrt, toy_bundle: Path) -> None:
    device = trt.device
    good = OnGpu(device, np.zeros((64, 64), np.uint8))
    small = OnGpu(device, np.zeros((32, 32), np.uint8))
    floats = OnGpu(device, np.zeros((64, 64), np.float32))
    cases: list[tuple[Any, str]] = [
        (small, r"uint8 \[32, 32\], the model takes uint8 \[64, 64\]"),
        (floats, "has to be uint8"),
        (OnGpu(device, good.values, strides=(128, 1)), "not contiguous"),
        (OnGpu(device, good.values, data=(0, False)), "no memory"),
        (Packed(good, index=1), "lies on device 1"),
        (Packed(good, bits=16), "has to be uint8"),
        (Packed(good, strides=(1, 64)), "not contiguous"),
    ]
    with Animator.open(toy_bundle, "tensorrt") as animator:
        animator.set_source(good)
        for array, message in cases:
            with pytest.raises(InputError, match=message):
                animator.animate(array)
            with pytest.raises(InputError, match=message):
                animator.animate(good, out=array)
        locked = OnGpu(device, good.values, data=(good.address, True))
        animator.animate(locked)
        with pytest.raises(InputError, match="read-only"):
            animator.animate(good, out=locked)
        for nothing in ("text", [1, 2], 3):
            with pytest.raises(InputError):
                animator.animate(nothing)
            with pytest.raises(InputError):
                animator.animate(good, out=nothing)
        assert animator.animate(good).shape == (64, 64)
        found = Packed(good, strides=(64, 1))
        assert animator.animate(found).shape == (64, 64)
    device.blocks.clear()


def test_arrays_on_a_gpu_want_a_backend_there(trt: FakeTrt, toy_bundle: Path) -> None:
    array = OnGpu(trt.device, np.zeros((64, 64), np.uint8))
    assert on_device(array) and on_device(Packed(array)) and not on_device(array.values)
    assert on_device(WantsGradient(array))
    with Animator.open(toy_bundle, "ort-cpu", threads=1) as animator:
        for action in (
            lambda: animator.set_source(array),
            lambda: animator.set_source(Packed(array)),
        ):
            with pytest.raises(BackendError, match="lies on a GPU, and the model runs on CPU"):
                action()
        animator.set_source(array.values)
        with pytest.raises(BackendError, match="the array to write to lies on a GPU") as caught:
            animator.animate(array.values, out=array)
        assert "numpy" in caught.value.hint and "tensorrt" in caught.value.hint
    array.free()


def test_what_was_lent_is_given_back_with_the_frame(trt: FakeTrt, toy_bundle: Path) -> None:
    with Animator.open(toy_bundle, "tensorrt") as animator:
        frame = OnGpu(trt.device, np.zeros((64, 64), np.uint8))
        animator.set_source(frame)
        animator.animate(frame, out=frame)
        assert animator.backend._in_use == []  # type: ignore[attr-defined]
        trt.device.fail("synchronise", "cudaErrorInvalidValue")
        with pytest.raises(BackendError):
            animator.animate(frame, out=frame)
        assert animator.backend._in_use == []  # type: ignore[attr-defined]
        assert animator.backend._taken is None  # type: ignore[attr-defined]
        frame.free()
