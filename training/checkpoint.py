"""Checkpoints: one file, written whole, read without running code from it.

Holds the format's number, the configuration, the step, the EMA weights (what tests and export use)
and, for resuming, the raw weights and the optimizers.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..runtime.support.atomic_files import atomic_path
from ..runtime.support.errors import CheckpointError, ConfigError, output_errors
from .config import Config, check, config_from_dict, config_to_dict
from .models.base import Model
from .models.families import family_of
from .weights_file import read_weights_only

FORMAT = 1
_OTHER_VERSION = "it may be of another version of sonomime"

#: Settings that are gone, with the value under which a model is the same without them.
RETIRED: dict[tuple[str, ...], Any] = {
    ("model", "keypoints", "unshuffle"): 1,
    ("model", "motion", "occlusion_maps"): 1,
    ("loss", "separation"): 0.0,
}


@dataclass
class Checkpoint:
    """A training's state.

    weights: EMA weights of the model. supervised_names: keypoints that had labels, in
    their order. data: what it was trained on, each with its name, its licence if that is known, and
    its clips by subject (trained_on.record), which older checkpoints lack. resume: what only
    training needs.
    """

    config: Config
    step: int
    weights: dict[str, Tensor]
    supervised_names: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
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

    def model(self) -> Any:
        """The model with the EMA weights, in eval mode."""
        model: Model = family_of(self.config.model).model(self.config.model)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights do not fit the configuration: {error}", "use the file as it was saved"
            ) from error
        return model.eval()


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
        config = config_from_dict(
            _without_retired(payload["config"], path), where=f"{path}: config"
        )
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
            [_data(entry) for entry in payload["data"]],
            dict(payload["resume"]),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: incomplete checkpoint: no {error}", _OTHER_VERSION
        ) from error
    except (AttributeError, TypeError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: not a whole checkpoint: {error}", _OTHER_VERSION) from error


def _without_retired(config: Any, path: Path) -> Any:
    """A configuration that an older version may have written, without what is gone."""
    table = copy.deepcopy(config)
    for (*sections, name), neutral in RETIRED.items():
        held = table
        for section in sections:
            held = held.get(section, {})
        if held.get(name) == neutral:
            del held[name]
    if table.get("model", {}).get("generator", {}).get("kind") == "lite":
        raise CheckpointError(
            f"{path}: holds a keypoint model of kind lite, which there is no more",
            "bundles exported from it still work; for a new one train lite again",
        )
    return table


def _data(entry: Any) -> dict[str, Any]:
    """An entry of ``data``; TypeError, ValueError or AttributeError if it is none."""
    data = dict(entry)
    if "clips" in data:
        data["clips"] = {str(subject): list(map(str, c)) for subject, c in data["clips"].items()}
    return data
