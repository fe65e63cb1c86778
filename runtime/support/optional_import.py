"""Import a package that may be missing or broken."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import BackendError
from .process import signal_behind


def import_or_explain(module: str, cure: str) -> Any:
    """The module. Ctrl-C and SIGTERM pass through, even if a package turned them into an error.

    Raises:
        BackendError: it cannot be imported; `cure` is the hint.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package of another numpy raises ValueError, and so on
        if (signal := signal_behind(error)) is not None:
            raise signal from None
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(f"{module} cannot be imported: {reason}", cure) from error
