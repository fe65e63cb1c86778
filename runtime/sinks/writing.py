"""What all writers share: how a frame is put, and that whatever fails is a failed write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from ..media.frames import Image
from ..support.errors import OutputError, SonomimeError, output_error

Put: TypeAlias = Callable[[Image, float], None]
"""Writes an image of the right size and channels at a time in seconds."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever fails inside is a failed write, whichever error the encoder raises."""
    try:
        yield
    except SonomimeError:
        raise
    except OSError as cause:
        raise output_error(path, cause) from cause
    except Exception as cause:
        reason = str(cause) or type(cause).__name__
        raise OutputError(f"cannot write {path}: {reason}") from cause
