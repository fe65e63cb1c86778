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

from ..support.errors import InputError
from .cuda import DEFAULT_STREAM, Device

_CUDA, _MANAGED = 2, 13  # DLDeviceType
_READ_ONLY, _COPIED = 1, 2  # flags of DLPack 1.0

# What producers raise: AttributeError and KeyError for half an interface, ValueError for a tensor
# of torch on "meta", BufferError and RuntimeError for one that wants a gradient.
_REFUSALS = (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError)


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
        try:
            return int(value.__dlpack_device__()[0]) in (_CUDA, _MANAGED)
        except _REFUSALS:  # it lies nowhere, as `host_array` will find
            return False
    return hasattr(value, "__cuda_array_interface__")


def host_array(value: Any, what: str) -> NDArray[Any]:
    """A numpy view of an array in the host's memory that is no numpy array, such as torch's.

    It can be written to if the array can. numpy 1.26 cannot tell by DLPack, nor can producers of
    DLPack before 1.0, so numpy takes theirs for read-only; there `__array__` is asked as well.

    Raises:
        InputError: it speaks no DLPack, or lies elsewhere.
    """
    if not hasattr(value, "__dlpack__"):
        hint = "give a numpy array, or one with __cuda_array_interface__ or __dlpack__"
        raise InputError(f"{what} is no array, but {type(value).__name__}", hint)
    try:
        view = np.from_dlpack(value)
        if not view.flags.writeable and hasattr(value, "__array__"):
            other = np.asarray(value)
            # The same memory, no copy?
            if other.__array_interface__["data"][0] == view.__array_interface__["data"][0]:
                return other
        return view
    except _REFUSALS as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from error


def device_array(
    value: Any, what: str, device: Device, stream: int, writable: bool = False
) -> DeviceArray:
    """Look at an array on a GPU.

    Args:
        value: what the caller gave; `what` names it in messages.
        device: the GPU that it has to lie on.
        stream: the stream that will read or write it; DLPack's producers let it wait for them.
        writable: it will be written to.

    Raises:
        InputError: not uint8, not contiguous, masked, read-only (which DLPack before 1.0 cannot
            say), or not on that GPU.
        DeviceError: the driver cannot say where it lies.
    """
    # DLPack first: by the other protocol torch does not tell which stream it works on.
    if hasattr(value, "__dlpack_device__"):
        found = _from_dlpack(value, what, device.index, stream, writable)
    else:
        found = _from_interface(value, what, device, writable)
    if found.nbytes and not found.address:
        raise InputError(f"{what} has no memory")
    return found


def _from_interface(value: Any, what: str, device: Device, writable: bool) -> DeviceArray:
    try:
        facts = value.__cuda_array_interface__
        shape = tuple(int(side) for side in facts["shape"])
        kind, (address, read_only) = facts["typestr"], facts["data"]
        # Version 3 says None where nothing is left to wait for; before it, nothing was said.
        stream = facts.get("stream", DEFAULT_STREAM)
        found = DeviceArray(int(address), shape, None if stream is None else int(stream), value)
    except _REFUSALS as error:
        raise _not_handed_over(what, error) from error
    _check_type(what, kind == "|u1", kind)
    _check_strides(what, shape, facts.get("strides"))
    if facts.get("mask") is not None:
        raise InputError(f"{what} has a mask", "fill in what it hides")
    _check_right(what, writable, "read-only" if read_only else "")
    # The interface names no GPU, so the driver has to.
    gpu = device.gpu_of(found.address) if found.address else device.index
    if gpu is None:
        raise InputError(f"{what} lies in no GPU's memory", "hand it over as a numpy array")
    _check_gpu(what, gpu, device.index)
    return found


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


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned of dlpack.h 1.x; unversioned ones begin with the tensor."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


def _from_dlpack(value: Any, what: str, device: int, stream: int, writable: bool) -> DeviceArray:
    try:
        _check_gpu(what, int(value.__dlpack_device__()[1]), device)
        # Capsules keep their first names, so their own destructors let go of the memory when we do.
        try:
            capsule = value.__dlpack__(stream=stream, max_version=(1, 0))
        except TypeError:  # a producer from before 1.0
            capsule = value.__dlpack__(stream=stream)
        tensor, why_not = _unpack(capsule)
    except _REFUSALS as error:
        raise _not_handed_over(what, error) from error
    _check_right(what, writable, why_not)
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    code, bits, lanes = tensor.code, tensor.bits, tensor.lanes
    _check_type(what, (code, bits, lanes) == (1, 8, 1), f"type {code} of {bits} bits")
    strides = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    _check_strides(what, shape, strides)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, None, capsule)


def _unpack(capsule: Any) -> tuple[_Tensor, str]:
    """A capsule's tensor, and why it may not be written to; ValueError for what is none."""
    named = ctypes.pythonapi.PyCapsule_IsValid
    named.restype, named.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]
    if not named(capsule, b"dltensor_versioned"):
        pointer = _capsule_pointer(capsule, b"dltensor")
        return ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents, ""
    pointer = _capsule_pointer(capsule, b"dltensor_versioned")
    managed = ctypes.cast(pointer, ctypes.POINTER(_Versioned)).contents
    if managed.major != 1:  # what comes after the flags may be anything
        raise ValueError(f"DLPack {managed.major}.{managed.minor} is not known here")
    read_only, copied = managed.flags & _READ_ONLY, managed.flags & _COPIED
    return managed.tensor, "read-only" if read_only else "a copy" if copied else ""


def _capsule_pointer(capsule: Any, name: bytes) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))


def _not_handed_over(what: str, error: Exception) -> InputError:
    return InputError(f"{what} cannot be handed over: {error!r}")


def _check_gpu(what: str, found: int, device: int) -> None:
    if found != device:
        raise InputError(
            f"{what} lies on GPU {found}, the model on GPU {device}",
            "copy it to the GPU that the model runs on",
        )


def _check_right(what: str, writable: bool, why_not: str) -> None:
    if writable and why_not:
        hint = "give an array that can be written to where it lies"
        raise InputError(f"{what} is {why_not}", hint)


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
