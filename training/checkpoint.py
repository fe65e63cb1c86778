"""Checkpoints: one file, written whole, read without running code from it.

Holds the format's number, the configuration, the step, the EMA weights (what tests and export use)
and, for resuming, the raw weights and the optimizers.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.errors import CheckpointError, ConfigError, output_errors
from ..runtime.files import atomic_path
from .config import Config, check, config_from_dict, config_to_dict
from .models.animator import AnimationModel, build_model

FORMAT = 1
_OTHER_VERSION = "it may be of another version of sonomime"


@dataclass
class Checkpoint:
    """A training's state.

    weights: EMA weights of the AnimationModel. supervised_names: keypoints that had labels, in
    their order. data: name and licence of what it was trained on. resume: what only training needs.
    """

    config: Config
    step: int
    weights: dict[str, Tensor]
    supervised_names: list[str] = field(default_factory=list)
    data: list[dict[str, str]] = field(default_factory=list)
    resume: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to ``path``, which appears only when whole. OutputError when the disk refuses."""
        payload = {
            "sonomime_checkpoint": FORMAT,
            "config": config_to_dict(self.config),
            "step": self.step,
            "weights": self.weights,
            "supervised_names": self.supervised_names,
            "data": self.data,
            "resume": self.resume,
        }
        with output_errors(path), atomic_path(path) as temporary:
            try:
                # A file of ours, not a path: only so is the disk's own error behind torch's.
                with temporary.open("wb") as stream:
                    torch.save(payload, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def model(self) -> AnimationModel:
        """The model with the EMA weights, in eval mode."""
        model = build_model(self.config.model)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights do not fit the configuration: {error}", "use the file as it was saved"
            ) from error
        return model.eval()


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
            "it may be cut short or another kind of file; copy it anew",
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``: a pickle that would run code is refused.

    Raises:
        CheckpointError: missing, damaged, malicious or not sonomime's.
    """
    payload = read_weights_only(path, "only load checkpoints that sonomime wrote")
    if not isinstance(payload, dict) or payload.get("sonomime_checkpoint") != FORMAT:
        raise CheckpointError(
            f"{path}: not a sonomime checkpoint of format {FORMAT}",
            "for FOMM's use `sonomime import-fomm`",
        )
    try:
        config = config_from_dict(payload["config"], where=f"{path}: config")
        check(config)
        weights = payload["weights"]
        if not isinstance(weights, dict) or not all(
            isinstance(t, Tensor) for t in weights.values()
        ):
            raise TypeError("its weights are not tensors by name")
        return Checkpoint(
            config,
            int(payload["step"]),
            weights,
            list(payload["supervised_names"]),
            list(payload["data"]),
            dict(payload["resume"]),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: incomplete checkpoint: no {error}", _OTHER_VERSION
        ) from error
    except (AttributeError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint: {error}", _OTHER_VERSION) from error
