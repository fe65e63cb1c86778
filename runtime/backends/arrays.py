"""Arrays of other libraries, in the host's memory or on a GPU, looked at without a copy.

`__cuda_array_interface__` (cupy, numba, pycuda's GPUArray, torch) and DLPack (torch, jax, cupy,
numpy) are protocols, so none of these libraries is imported here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .cuda import DEFAULT_STREAM

_CUDA, _MANAGED = 2, 13  # DLDeviceType


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous uint8 memory on a GPU. `stream`: what its producer may still be working on, None
    where that was settled already. `owner` keeps the memory alive."""

    address: int
    shape: tuple[int, ...]
    stream: int | None
    owner: Any

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64))


def on_device(value: Any) -> bool:
    """Whether `value` is an array on a GPU, by one of the two protocols."""
    # DLPack first: the other one raises for a tensor of torch that wants a gradient.
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) in (_CUDA, _MANAGED)
    return hasattr(value, "__cuda_array_interface__")


def host_array(value: Any, what: str) -> NDArray[Any]:
    """A numpy view of an array in the host's memory that is no numpy array, such as torch's.

    Raises:
        InputError: it speaks no DLPack, or lies elsewhere.
    """
    if not hasattr(value, "__dlpack__"):
        hint = "give a numpy array, or one with __cuda_array_interface__ or __dlpack__"
        raise InputError(f"{what} is no array, but {type(value).__name__}", hint)
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from error


def device_array(
    value: Any, what: str, device: int, stream: int, writable: bool = False
) -> DeviceArray:
    """Look at an array on a GPU.

    Args:
        value: what the caller gave; `what` names it in messages.
        device: the number of the GPU that it has to lie on.
        stream: the stream that will read or write it; DLPack's producers let it wait for them.
        writable: it will be written to.

    Raises:
        InputError: not uint8, not contiguous, read-only, or on another GPU, as far as the protocol
            tells: `__cuda_array_interface__` names no GPU, and DLPack as asked for here no right to
            write.
    """
    # DLPack first: by the other protocol torch does not tell which stream it works on.
    if hasattr(value, "__dlpack_device__"):
        found = _from_dlpack(value, what, device, stream)
    else:
        found = _from_interface(value, what, writable)
    if found.nbytes and not found.address:
        raise InputError(f"{what} has no memory")
    return found


def _from_interface(value: Any, what: str, writable: bool) -> DeviceArray:
    facts = value.__cuda_array_interface__
    shape = tuple(int(side) for side in facts["shape"])
    _check_type(what, facts["typestr"] == "|u1", facts["typestr"])
    _check_strides(what, shape, facts.get("strides"))
    address, read_only = facts["data"]
    if writable and read_only:
        raise InputError(f"{what} is read-only")
    # Version 3 says None where nothing is left to wait for; before it, nothing was said.
    stream = facts.get("stream", DEFAULT_STREAM)
    return DeviceArray(int(address), shape, stream, value)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, the same in all versions."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(value: Any, what: str, device: int, stream: int) -> DeviceArray:
    kind, index = (int(part) for part in value.__dlpack_device__())
    if kind not in (_CUDA, _MANAGED) or index != device:
        raise InputError(
            f"{what} lies on device {index} of kind {kind}, the model on GPU {device}",
            "copy it to the GPU that the model runs on",
        )
    try:
        capsule = value.__dlpack__(stream=stream)
        # It keeps its first name, so its own destructor lets go of the memory when we do.
        pointer = _capsule_pointer(capsule, b"dltensor")
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{what} cannot be handed over: {error}") from error
    tensor = ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    code, bits, lanes = tensor.code, tensor.bits, tensor.lanes
    _check_type(what, (code, bits, lanes) == (1, 8, 1), f"type {code} of {bits} bits")
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    _check_strides(what, shape, strides)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, None, capsule)


def _capsule_pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))


def _check_type(what: str, is_uint8: bool, found: str) -> None:
    if not is_uint8:
        raise InputError(f"{what} has to be uint8, not {found}", "levels are 0 to 255")


def _check_strides(what: str, shape: Sequence[int], strides: Sequence[int] | None) -> None:
    """Strides in bytes, which for uint8 are elements too; None is contiguous."""
    if strides is None:
        return
    step = 1
    for side, stride in zip(reversed(shape), reversed(strides), strict=True):
        if side > 1 and stride != step:
            raise InputError(f"{what} is not contiguous", "hand over a contiguous copy of it")
        step *= side
