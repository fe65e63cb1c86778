"""Read what `torch.save` wrote, without running code from it."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..runtime.support.errors import CheckpointError


def read_weights_only(path: Path, refused_hint: str) -> Any:
    """What ``torch.save`` put into a file, if it is tensors and plain values; no code of it runs.

    Raises:
        CheckpointError: no such file, damaged, larger unpacked than packed (torch does not
            compress), TorchScript, or a pickle that calls something (with ``refused_hint``).
    """
    if not path.is_file():
        hint = "give the path of a checkpoint file; of a run, RUN/checkpoint.pt"
        raise CheckpointError(f"{path}: no such checkpoint", hint)
    try:
        with path.open("rb") as file:
            packed = file.read(4) == b"PK\x03\x04"  # how torch tells; older files are not zip
        if packed:
            with zipfile.ZipFile(path) as archive:
                size = sum(member.file_size for member in archive.infolist())
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    fault = f"{path}: refused, because it is TorchScript, which is code"
                    raise CheckpointError(fault, "give the weights alone, as a state dict")
            if size > path.stat().st_size:
                raise ValueError(f"it unpacks to {size >> 20} MiB, more than the file holds")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        # Not torch's own text, which advises to load without the guard.
        call = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and call:
            fault = f"{path}: refused, because it holds more than weights: it names {call[1]}"
            raise CheckpointError(fault, refused_hint) from error
        reason = error if type(error) is ValueError else type(error).__name__
        hint = "it may be cut short or another kind of file; copy it again"
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason})", hint) from error
