"""Hints for CUDA's error codes, and which of them make the GPU unusable for this process."""

from __future__ import annotations

from ..support.errors import BackendError

# After one of these every later call of the process fails too: its context is gone.
STICKY = frozenset(
    "cudaError" + name
    for name in (
        "Assert", "Contained", "ContextIsDestroyed", "CudartUnloading", "DeviceUninitialized",
        "ECCUncorrectable", "ExternalDevice", "HardwareStackError", "IllegalAddress",
        "IllegalInstruction", "InvalidAddressSpace", "InvalidPc", "LaunchFailure", "LaunchTimeout",
        "MisalignedAddress", "MpsClientTerminated", "NvlinkUncorrectable", "TensorMemoryLeak",
        "Unknown",
    )
)  # fmt: skip

LOST = (
    "this process cannot use the GPU any more: start the program again; if it comes back, set "
    "SONOMIME_CUDA_GRAPH=0 and CUDA_LAUNCH_BLOCKING=1 to see where, and look at dmesg"
)

_NO_GPU = (
    "nvidia-smi has to list a GPU; start a container with --gpus all, and let CUDA_VISIBLE_DEVICES "
    "name one"
)
_DRIVER = (
    "install or update the NVIDIA driver (nvidia-smi shows its CUDA version), or install the "
    "cuda-bindings of the driver's CUDA version"
)

_CURES = {
    "cudaErrorMemoryAllocation": "free some of the GPU's memory (nvidia-smi shows what uses it), "
    "close other Animators, or use a smaller bundle",
    "cudaErrorInsufficientDriver": _DRIVER,
    "cudaErrorSystemDriverMismatch": _DRIVER,
    "cudaErrorCompatNotSupportedOnDevice": _DRIVER,
    "cudaErrorUnsupportedPtxVersion": _DRIVER,
    "cudaErrorStubLibrary": "a stub of libcuda was loaded: take its folder (.../stubs) out of "
    "LD_LIBRARY_PATH",
    "cudaErrorNoDevice": _NO_GPU,
    "cudaErrorInitializationError": _NO_GPU + "; CUDA cannot be used after fork(): start "
    "processes by `spawn`",
    "cudaErrorDevicesUnavailable": "the GPU is busy or reserved: see who uses it with nvidia-smi, "
    "and its compute mode",
    "cudaErrorSystemNotReady": "start the machine's fabric manager and look at nvidia-smi",
    "cudaErrorNoKernelImageForDevice": "something was compiled for another GPU: build the engines "
    "and the plugin on this one",
}


class DeviceError(BackendError):
    """A call of CUDA failed. `code` is its name, as `cudaErrorMemoryAllocation`."""

    def __init__(self, message: str, hint: str = "", code: str = "") -> None:
        super().__init__(message, hint)
        self.code = code

    @property
    def lost(self) -> bool:
        """Whether the GPU is out of reach for the rest of the process."""
        return self.code in STICKY


def device_error(code: str, text: str, what: str) -> DeviceError:
    """The error for CUDA's `code`, whose description is `text`, in the middle of `what`."""
    cure = LOST if code in STICKY else _CURES.get(code, "look at nvidia-smi and `sonomime doctor`")
    return DeviceError(f"the GPU failed while {what}: {text} ({code})", cure, code)
