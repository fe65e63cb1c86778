"""Checkpoints: one file, written whole, read without running code from it."""

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
_OTHER_VERSION = "another version of sonomime may have written it"

#: Settings that are gone, with the value under which a model is the same without them.
RETIRED: dict[tuple[str, ...], Any] = {
    ("model", "keypoints", "unshuffle"): 1,
    ("model", "motion", "occlusion_maps"): 1,
    ("loss", "separation"): 0.0,
}


@dataclass
class Checkpoint:
    """A training's state.

    weights: EMA weights of the model, which tests and export use. supervised_names: keypoints that
    had labels, in their order. data: what it was trained on (see trained_on.record; older
    checkpoints have no clips). resume: raw weights and optimizers, for training alone.
    """

    config: Config
    step: int
    weights: dict[str, Tensor]
    supervised_names: list[str] = field(default_factory=list)
    data: list[dict[str, Any]] = field(default_factory=list)
    resume: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write to ``path``, whole or not at all. OutputError when the disk refuses."""
        payload = {**vars(self), "sonomime_checkpoint": FORMAT}
        payload["config"] = config_to_dict(self.config)
        with output_errors(path), atomic_path(path) as temporary:
            try:
                # With an open file, torch's error has the disk's own error as its context.
                with temporary.open("wb") as stream:
                    torch.save(payload, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def model(self) -> Any:
        """The model with the EMA weights, in eval mode.

        Raises:
            CheckpointError: the weights do not fit the configuration; checked before memory is
                taken for the model.
        """
        build = family_of(self.config.model).model
        with torch.device("meta"):
            wanted = {name: t.shape for name, t in build(self.config.model).state_dict().items()}
        found = {name: t.shape for name, t in self.weights.items() if not t.is_nested}
        misfits = [k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k)]
        if misfits:
            raise CheckpointError(
                f"weights do not fit the configuration: {', '.join(sorted(misfits)[:5])}",
                "use the file as it was saved",
            )
        model: Model = build(self.config.model)
        try:
            model.load_state_dict(self.weights)
        except (RuntimeError, NotImplementedError) as error:  # a sparse or quantized tensor
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
        table = _without_retired(payload["config"], path)
        config = config_from_dict(table, where=f"{path}: config")
        check(config)
        return Checkpoint(
            config,
            int(payload["step"]),
            _weights(payload["weights"], path),
            [_text(name) for name in payload["supervised_names"]],
            [_data(entry) for entry in payload["data"]],
            dict(payload["resume"]),
        )
    except KeyError as error:
        raise CheckpointError(
            f"{path}: incomplete checkpoint: no {error}", _OTHER_VERSION
        ) from error
    except (
        ArithmeticError, AttributeError, ConfigError, RecursionError, RuntimeError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path}: not a whole checkpoint: {error}", _OTHER_VERSION) from error


def _without_retired(config: Any, path: Path) -> Any:
    """A configuration that an older version may have written, without settings that are gone."""
    table = copy.deepcopy(config)
    for (*sections, name), neutral in RETIRED.items():
        held = table
        for section in sections:
            held = held.get(section, {})
        if held.get(name) == neutral:
            del held[name]
    if table.get("model", {}).get("generator", {}).get("kind") == "lite":
        raise CheckpointError(
            f"{path}: holds a keypoint model of kind lite, which no longer exists",
            "bundles exported from it still work; for a new one train lite again",
        )
    return table


def _weights(weights: Any, path: Path) -> dict[str, Tensor]:
    size = 0
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TypeError("its weights are not tensors by name")
        size += tensor.numel() * tensor.element_size()
    # A few stored bytes can pose as a tensor of any size, by strides of 0.
    if size > path.stat().st_size:
        raise ValueError("its weights are larger than the file")
    return dict(weights)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not a name")
    return value


def _data(entry: Any) -> dict[str, Any]:
    """An entry of ``data``."""
    if not isinstance(entry, dict):
        raise TypeError("its record of data is not a table")
    data = {_text(key): value for key, value in entry.items()} | {"name": _text(entry["name"])}
    if "clips" in data:
        data["clips"] = {str(subject): list(map(str, c)) for subject, c in data["clips"].items()}
    return data
