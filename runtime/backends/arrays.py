"""Arrays of other libraries, in the host's memory or on a GPU, used without a copy.

`__cuda_array_interface__` (cupy, numba, pycuda's GPUArray, torch) and DLPack (torch, jax, cupy,
numpy) are protocols, so none of these libraries is imported here.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..support.errors import InputError
from .cuda import DEFAULT_STREAM, Device

_CUDA, _MANAGED = 2, 13  # DLDeviceType
_UINT8 = (1, 8, 1)  # DLDataType: code, bits, lanes
_READ_ONLY, _COPIED = 1, 2  # flags of DLPack 1.0

# What producers raise: AttributeError and KeyError for an incomplete interface, ValueError for a
# tensor of torch on "meta", BufferError and RuntimeError for one that wants a gradient.
_REFUSALS = (AttributeError, BufferError, KeyError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class DeviceArray:
    """Contiguous uint8 memory on a GPU. `stream`: where its producer may still be at work, None
    where it is not. `owner` keeps the memory alive."""

    address: int
    shape: tuple[int, ...]
    stream: int | None
    owner: Any

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return math.prod(self.shape)


def on_device(value: Any) -> bool:
    """Whether `value` is an array on a GPU, by one of the two protocols."""
    # DLPack first: the other one raises for a tensor of torch that wants a gradient.
    if hasattr(value, "__dlpack_device__"):
        try:
            return int(value.__dlpack_device__()[0]) in (_CUDA, _MANAGED)
        except _REFUSALS:  # `host_array` will say why
            return False
    return hasattr(value, "__cuda_array_interface__")


def host_array(value: Any, what: str) -> NDArray[Any]:
    """A numpy view of an array of another library, such as torch, in the host's memory.

    It can be written to if the array can. numpy 1.26 cannot tell by DLPack, nor can producers of
    DLPack before 1.0, so numpy takes theirs for read-only; there `__array__` is asked as well.

    Raises:
        InputError: it has no DLPack, or lies elsewhere.
    """
    if not hasattr(value, "__dlpack__"):
        hint = "give a numpy array, or one with __cuda_array_interface__ or __dlpack__"
        raise InputError(f"{what} is not an array, but {type(value).__name__}", hint)
    try:
        view = np.from_dlpack(value)
        if not view.flags.writeable and hasattr(value, "__array__"):
            other = np.asarray(value)
            # The same memory, not a copy?
            if other.__array_interface__["data"][0] == view.__array_interface__["data"][0]:
                return other
        return view
    except _REFUSALS as error:
        raise InputError(f"{what} cannot be read as an array: {error}") from error


def device_array(
    value: Any, what: str, device: Device, stream: int, writable: bool = False
) -> DeviceArray:
    """Check an array on a GPU and find its memory.

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
    dlpack = hasattr(value, "__dlpack_device__")
    try:
        if dlpack:
            _check_gpu(what, int(value.__dlpack_device__()[1]), device)
        found, is_uint8, strides, locked = (
            _from_dlpack(value, stream) if dlpack else _from_interface(value)
        )
    except _REFUSALS as error:
        raise InputError(f"{what} cannot be handed over: {error!r}") from error
    if not is_uint8:
        raise InputError(f"{what} has to be uint8", "levels are 0 to 255")
    # In bytes, which for uint8 are elements too.
    steps = [math.prod(found.shape[i + 1 :]) for i in range(len(found.shape))]
    strides = steps if strides is None else list(strides)
    both = zip(found.shape, strides, steps, strict=False)
    if len(strides) != len(steps) or any(n > 1 and given != step for n, given, step in both):
        raise InputError(f"{what} is not contiguous", "hand over a contiguous copy of it")
    if writable and locked:
        hint = "give an array that can be written to where it lies"
        raise InputError(f"{what} is {locked}", hint)
    if found.nbytes and not found.address:
        raise InputError(f"{what} has no memory")
    if found.address and not dlpack:  # the other protocol names no GPU, so the driver has to
        _check_gpu(what, device.gpu_of(found.address), device)
    return found


def _check_gpu(what: str, found: int | None, device: Device) -> None:
    if found != device.index:
        raise InputError(
            f"{what} does not lie on GPU {device.index}, where the model is, but "
            f"{'in no GPU memory' if found is None else f'on GPU {found}'}",
            "copy it to the GPU that the model runs on, or hand it over as a numpy array",
        )


# An array, whether it is uint8, its strides if they were given, and why it may not be written to.
_Found = tuple[DeviceArray, bool, Sequence[int] | None, str]


def _from_interface(value: Any) -> _Found:
    facts = value.__cuda_array_interface__
    shape = tuple(int(side) for side in facts["shape"])
    address, read_only = facts["data"]
    # Version 3 says None where there is nothing to wait for; earlier ones say nothing.
    stream = facts.get("stream", DEFAULT_STREAM)
    if facts.get("mask") is not None:
        raise ValueError("it has a mask: fill in what it hides")
    found = DeviceArray(int(address), shape, None if stream is None else int(stream), value)
    return found, facts["typestr"] == "|u1", facts.get("strides"), "read-only" if read_only else ""


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h, the same in all versions."""

    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class _Versioned(ctypes.Structure):
    """DLManagedTensorVersioned of dlpack.h 1.x; unversioned ones begin with the tensor."""

    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("context", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    )


def _from_dlpack(value: Any, stream: int) -> _Found:
    # Capsules keep their first names, so their own destructors let go of the memory when we do.
    try:
        capsule = value.__dlpack__(stream=stream, max_version=(1, 0))
    except TypeError:  # a producer from before 1.0
        capsule = value.__dlpack__(stream=stream)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = c_void_p, [ctypes.py_object, ctypes.c_char_p]
    locked = ""
    try:
        managed = _Versioned.from_address(get(capsule, b"dltensor_versioned"))
    except ValueError:  # a capsule of another name
        tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    else:
        if managed.major != 1:  # what comes after the flags may be anything
            raise ValueError(f"DLPack {managed.major}.{managed.minor} is not known here")
        tensor = managed.tensor
        locked = "a copy" if managed.flags & _COPIED else locked
        locked = "read-only" if managed.flags & _READ_ONLY else locked
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tensor.strides[: tensor.ndim] if tensor.strides else None
    found = DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, None, capsule)
    return found, (tensor.code, tensor.bits, tensor.lanes) == _UINT8, strides, locked
