"""Import a package that may be missing or broken."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import BackendError


def import_or_explain(module: str, cure: str) -> Any:
    """The module. Ctrl-C and SIGTERM pass through, also where a package's native code has turned
    them into an ImportError of its own.

    Raises:
        BackendError: it cannot be imported; `cure` is the hint.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BackendError(f"{module} cannot be imported: {reason}", cure) from error
