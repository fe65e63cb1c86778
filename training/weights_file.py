"""Read what `torch.save` wrote, without running code from it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from ..runtime.support.errors import CheckpointError


def read_weights_only(path: Path, refused_hint: str) -> Any:
    """What ``torch.save`` put into a file, if that is tensors and plain values; no code of it runs.

    Raises:
        CheckpointError: no such file, damaged, or a pickle that calls something (with
        ``refused_hint``).
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", "give the path of a checkpoint file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        # torch's own text advises to load without the guard: only the name of what was to be called
        # is kept.
        call = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and call:
            raise CheckpointError(
                f"{path}: refused, because it holds more than weights: it names {call[1]}",
                refused_hint,
            ) from error
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({type(error).__name__})",
            "it may be cut short or another kind of file; copy it again",
        ) from error
