"""What the errors of libraries and of the system mean to a user."""

from __future__ import annotations

from .errors import (
    WRITE_ERRNOS,
    BackendError,
    InputError,
    SonomimeError,
    is_out_of_memory,
    output_error,
)

# The extra that brings a module which may be missing.
_EXTRAS = {
    "onnxruntime": "cpu", "torch": "train", "onnx": "train", "onnxscript": "train", "yaml": "train",
    "tensorrt_rtx_bindings": "rtx", "pydicom": "dicom", "nrrd": "nrrd", "fastcrc": "live",
    "aiohttp": "live",
}  # fmt: skip


def as_ours(error: BaseException) -> SonomimeError:
    """An error as one of ours, which says what to do; ours stay as they are."""
    if isinstance(error, SonomimeError):
        return error
    module = (isinstance(error, ModuleNotFoundError) and error.name) or ""
    if extra := _EXTRAS.get(module.partition(".")[0]):
        hint = f'pip install "sonomime[{extra}]"'
        return BackendError(f"{module} is not installed, which this verb needs", hint)
    if isinstance(error, OSError) and error.errno in WRITE_ERRNOS:
        return output_error(error.filename or "the output", error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        hint = "check the path and its permissions"
        return InputError(f"{error.filename}: {error.strerror}", hint)
    if is_out_of_memory(error):
        hint = "close other programs, or use less data or a smaller model"
        return BackendError("there is not enough memory", hint)
    hint = "this is a defect; --debug shows where: report it"
    return SonomimeError(f"{type(error).__name__}: {error}", hint)
