"""Checkpoints: one file, written whole, read without running code from it.

Holds the format's number, the configuration, the step, the EMA weights (what tests and export use) and, for resuming,
the raw weights and the optimizers.
"""

from __future__ import annotations

import pickle
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


@dataclass
class Checkpoint:
    """A training's state. ``weights``: EMA weights of the AnimationModel; ``resume``: what only training needs."""

    config: Config
    step: int
    weights: dict[str, Tensor]
    supervised_names: list[str] = field(default_factory=list)  # keypoints that had labels, in their order
    data: list[dict[str, str]] = field(default_factory=list)  # name and licence of what it was trained on
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
                torch.save(payload, temporary)
            except RuntimeError as error:
                # torch's zip writer hides the disk's own error behind a RuntimeError.
                raise OSError(28, f"could not write the checkpoint: {error}") from error

    def model(self) -> AnimationModel:
        """The model with the EMA weights, in eval mode."""
        model = build_model(self.config.model)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(f"weights do not fit the configuration: {error}", "use the file as it was saved") from error
        return model.eval()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``: a pickle that would run code is refused.

    Raises:
        CheckpointError: missing, damaged, malicious or not sonomime's.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint", "give the .pt file that `sonomime train` wrote")
    try:
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: refused, because it holds more than weights: {str(error).splitlines()[0]}",
            "only load checkpoints that sonomime wrote; for FOMM's use `sonomime import-fomm`",
        ) from error
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path}: not a readable checkpoint: {error}", "it may be cut short; copy it anew") from error
    if not isinstance(payload, dict) or payload.get("sonomime_checkpoint") != FORMAT:
        raise CheckpointError(
            f"{path}: not a sonomime checkpoint of format {FORMAT}", "for FOMM's use `sonomime import-fomm`"
        )
    try:
        config = config_from_dict(payload["config"], where=f"{path}: config")
        check(config)
        return Checkpoint(
            config, int(payload["step"]), payload["weights"], list(payload["supervised_names"]),
            list(payload["data"]), dict(payload["resume"]),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: incomplete checkpoint: {error}", "it may be of another version") from error
