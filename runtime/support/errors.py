"""Errors that a user can act on: a message, a hint that says what to do, and an exit code.

The command line prints ``error: MESSAGE`` and ``hint: HINT`` and leaves with the error's
``exit_code``: 2 usage or configuration, 3 bundle or checkpoint, 4 backend, 5 export, 6 input,
7 output. With 8 the run is done, but an input was damaged or a row of a batch failed. Other codes:
1 for a defect of sonomime, 130 for Ctrl-C, 129 for SIGHUP, 143 for SIGTERM.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import ClassVar

EXIT_DAMAGED = 8


class SonomimeError(Exception):
    """Base of every error of this package. `message` says what is wrong, naming the file, key or
    value at fault; `hint` what to do about it, or "" when there is nothing to add."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)  # both, so that pickling keeps both
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class ConfigError(SonomimeError):
    """A wrong option, setting or configuration key."""

    exit_code = 2


class BundleError(SonomimeError):
    """A bundle that is incomplete, was changed or does not keep the contract."""

    exit_code = 3


class CheckpointError(SonomimeError):
    """A checkpoint that cannot be read, is unsafe or belongs to another model."""

    exit_code = 3


class BackendError(SonomimeError):
    """The chosen backend cannot run."""

    exit_code = 4


class ExportError(SonomimeError):
    """An export whose numbers do not agree with the model's."""

    exit_code = 5


class InputError(SonomimeError):
    """An image, video or dataset that cannot be used."""

    exit_code = 6


class UnsupportedFormat(InputError):
    """A file whose format is known but has no reader (yet)."""


class StreamError(InputError):
    """A peer on the network that cannot be reached, or sends what cannot be used."""


class OutputError(SonomimeError):
    """A file that could not be written: full disk, no permission, something in the way."""

    exit_code = 7


class Busy(OutputError):
    """A folder that another process is writing into."""


_ELSEWHERE = "choose another place (-o for the output, XDG_CACHE_HOME for the cache)"
_WRITE_HINTS = {
    errno.ENOSPC: f"free some space on that disk, or {_ELSEWHERE}",
    errno.EDQUOT: f"free some of the disk quota, or {_ELSEWHERE}",
    errno.EFBIG: "the file passes the size limit of this process (ulimit -f) or of the file system",
    errno.ENAMETOOLONG: "choose a shorter name",
}
WRITE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Errors that only a write can meet, never the read of another file."""


def output_error(path: str | PathLike[str], cause: OSError) -> OutputError:
    """The `OutputError` for a failed write to `path`, its hint chosen by errno."""
    reason = cause.strerror or str(cause) or type(cause).__name__
    hint = _WRITE_HINTS.get(cause.errno or 0, _ELSEWHERE)
    return OutputError(f"cannot write {fspath(path)}: {reason}", hint)


@contextmanager
def output_errors(
    path: str | PathLike[str], errnos: Collection[int] | None = None
) -> Iterator[None]:
    """Turn an OSError inside the block, which writes `path`, into an OutputError that names it.

    `errnos`: which errors to turn, all when None; WRITE_ERRNOS where the block also reads.
    """
    try:
        yield
    except OSError as cause:
        if errnos is not None and cause.errno not in errnos:
            raise
        raise output_error(path, cause) from cause


_NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the machine or of a GPU did not suffice."""
    # torch's allocator of the CPU, CUDA and its libraries have no classes of their own.
    said = isinstance(error, RuntimeError) and any(part in str(error) for part in _NO_MEMORY)
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or said
