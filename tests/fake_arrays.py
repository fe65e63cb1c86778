"""Arrays of other libraries: on the fake GPU, and by the protocols that they are handed over by."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from fake_cuda import FakeCuda

from sonomime.runtime.backends.arrays import _Tensor, _Versioned


class OnGpu:
    """An array on the fake GPU, as cupy's and pycuda's are; `interface` overrides what it says."""

    def __init__(self, cuda: FakeCuda, values: Any, **interface: Any) -> None:
        self.values = np.ascontiguousarray(values)
        self.address = cuda.Malloc(self.values.nbytes)
        block = cuda.block(self.address).view(self.values.dtype)
        self.memory = block.reshape(self.values.shape)
        self.memory[...] = self.values
        self.interface = interface

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        facts = {"shape": self.values.shape, "typestr": self.values.dtype.str, "version": 2}
        return facts | {"data": (self.address, False)} | self.interface


class Packed:
    """The same by DLPack alone; `said` is what it was asked for. With `major` as from DLPack 1.0,
    with its flags: 1 is read-only, 2 a copy."""

    def __init__(
        self, array: OnGpu, index: int = 0, bits: int = 8, strides: tuple[int, ...] | None = None,
        major: int = 0, flags: int = 0,
    ) -> None:  # fmt: skip
        self.array, self.index, self.said = array, index, []  # type: tuple[Any, int, list[Any]]
        shape = array.values.shape
        numbers = ctypes.c_int64 * len(shape)
        self.shape, self.strides = numbers(*shape), numbers(*strides) if strides else None
        self.tensor = _Tensor(
            array.address - 16, 2, index, len(shape), 1, bits, 1, self.shape, self.strides, 16
        )
        self.content, self.name = self.tensor, b"dltensor"  # type: tuple[Any, bytes]
        if major:
            self.content = _Versioned(major, 1, None, None, flags, self.tensor)
            self.name = b"dltensor_versioned"

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.index

    def __dlpack__(self, stream: int, **options: Any) -> Any:
        if options and self.content is self.tensor:
            raise TypeError("an older one knows no max_version")
        self.said.append(stream)
        make = ctypes.pythonapi.PyCapsule_New
        make.restype = ctypes.py_object
        make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return make(ctypes.addressof(self.content), self.name, None)


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
        return self.values.copy() if copy else self.values
