"""Arrays of other libraries: on the fake GPU, and by the protocols that they are handed over by."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from fake_device import FakeDevice

from sonomime.runtime.backends.arrays import _Tensor, _Versioned


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


class Packed:
    """The same by DLPack alone; `said` is what it was asked for."""

    def __init__(
        self, array: OnGpu, index: int = 0, bits: int = 8, strides: tuple[int, ...] | None = None
    ) -> None:
        self.array, self.index, self.said = array, index, []  # type: tuple[Any, int, list[Any]]
        shape = array.values.shape
        numbers = ctypes.c_int64 * len(shape)
        self.shape, self.strides = numbers(*shape), numbers(*strides) if strides else None
        self.tensor = _Tensor(
            array.address - 16, 2, index, len(shape), 1, bits, 1, self.shape, self.strides, 16
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.index

    def __dlpack__(self, stream: int) -> Any:
        self.said.append(stream)
        return capsule(self.tensor, b"dltensor")


class PackedAgain(Packed):
    """By DLPack 1.0, with its flags: 1 is read-only, 2 a copy."""

    def __init__(self, array: OnGpu, flags: int = 0, major: int = 1, **facts: Any) -> None:
        super().__init__(array, **facts)
        self.versioned = _Versioned(major, 1, None, None, flags, self.tensor)

    def __dlpack__(self, stream: int, max_version: tuple[int, int] = (0, 8)) -> Any:
        assert max_version >= (1, 0)
        self.said.append(stream)
        return capsule(self.versioned, b"dltensor_versioned")


def capsule(content: ctypes.Structure, name: bytes) -> Any:
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(ctypes.addressof(content), name, None)


class OnHost:
    """An array by DLPack before 1.0, which says nothing of writing: as torch's were until 2.9."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, stream: None = None) -> Any:
        return self.values.__dlpack__()


class AlsoNumpy(OnHost):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values


class CopiedByNumpy(OnHost):
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self.values.copy()
