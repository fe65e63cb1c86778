"""Checkpoints: one file, written whole, read without running code from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..runtime.support.atomic_files import atomic_path
from ..runtime.support.dataclass_parser import plain
from ..runtime.support.errors import CheckpointError, output_errors
from .config import Config
from .config_file import check, config_from_dict
from .data.dataset import Clip
from .models.base import Model
from .models.families import family_of
from .weights_file import read_weights_only

FORMAT = 1
_OTHER = "another version of sonomime may have written it: train or import it again"

#: Settings that are gone, with the value under which a model is the same without them: an older
#: checkpoint that has this value is read.
RETIRED: dict[tuple[str, ...], Any] = {
    ("model", "keypoints", "unshuffle"): 1,
    ("model", "motion", "occlusion_maps"): 1,
    ("model", "generator", "upsample"): "nearest",  # model.upsample now
    ("loss", "separation"): 0.0,
    ("loss", "perceptual_scales"): 4,
    ("data", "near_start"): 4,
    ("data", "near_steps"): 0,
    ("data", "synthetic_until"): 0,
}
SPLINE_BEFORE = 0.005  # of keypoint models, before loss.spline was a setting


@dataclass
class Checkpoint:
    """A training's state.

    weights: EMA weights of the model, which tests and export use. supervised_names: keypoints that
    had labels, in their order. data: what it was trained on (see `record`; older
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
        payload = {**vars(self), "config": plain(self.config), "sonomime_checkpoint": FORMAT}
        with output_errors(path), atomic_path(path) as temporary, temporary.open("wb") as stream:
            try:
                torch.save(payload, stream)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # the disk's own error
                    raise error.__context__ from None
                raise

    def model(self) -> Any:
        """The model with the EMA weights, in eval mode.

        Raises:
            CheckpointError: the weights do not fit the configuration; checked before memory is
                taken for the model.
        """
        build = family_of(self.config.model).model
        try:
            with torch.device("meta"):
                build(self.config.model).load_state_dict(self.weights, assign=True)
            model: Model = build(self.config.model)
            model.load_state_dict(self.weights)
        except (RuntimeError, NotImplementedError) as error:  # a sparse or quantized tensor
            said = " ".join(str(error).split())
            fault = f"weights do not fit the configuration: {said[:400]}"
            raise CheckpointError(fault, "use the file as it was saved") from error
        return model.eval()


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint with ``weights_only=True``: a pickle that would run code is refused.

    Raises:
        CheckpointError: missing, damaged, malicious or not sonomime's.
    """
    payload = read_weights_only(path, "only load checkpoints that sonomime wrote")
    if not isinstance(payload, dict) or payload.get("sonomime_checkpoint") != FORMAT:
        fault = f"{path}: not a sonomime checkpoint of format {FORMAT}"
        raise CheckpointError(fault, "for FOMM's use `sonomime import-fomm`")
    try:
        for (*sections, name), neutral in RETIRED.items():
            held = payload["config"]
            for section in sections:
                held = held.get(section, {})
            if held.get(name) == neutral:
                del held[name]
        if "loss" in payload["config"]:
            payload["config"]["loss"].setdefault("spline", SPLINE_BEFORE)
        if payload["config"]["model"].get("geometry") == "fomm":
            if payload["step"] == 0:
                fault = f"{path}: imported when sonomime sampled FOMM's weights wrongly"
                raise CheckpointError(fault, "import it again: sonomime import-fomm")
            payload["config"]["model"]["geometry"] = "fomm_unaligned"  # so it was trained
        if payload["config"]["model"].get("generator", {}).get("kind") == "lite":
            raise ValueError("it holds a keypoint model of kind lite, which no longer exists")
        config = config_from_dict(payload["config"])
        check(config)
        weights = {_text(name): tensor for name, tensor in payload["weights"].items()}
        if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
            raise TypeError("its weights are not tensors by name")
        # A few stored bytes can pose as a tensor of any size, by strides of 0.
        if sum(t.numel() * t.element_size() for t in weights.values()) > path.stat().st_size:
            raise ValueError("its weights are larger than the file")
        names = [_text(name) for name in payload["supervised_names"]]
        data = [_data(entry) for entry in payload["data"]]
        step, resume = int(payload["step"]), dict(payload["resume"])
        return Checkpoint(config, step, weights, names, data, resume)
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"{path}: incomplete checkpoint: no {error}", _OTHER) from error
    except Exception as error:  # anything may stand anywhere in such a file
        fault = f"{path}: not a whole checkpoint ({type(error).__name__}: {error})"
        raise CheckpointError(fault, _OTHER) from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is not a name")
    return value


def _data(entry: Any) -> dict[str, Any]:
    """An entry of ``data``."""
    data = {_text(key): value for key, value in dict(entry).items()}
    _text(data["name"])
    if "clips" in data:
        data["clips"] = {str(subject): list(map(str, c)) for subject, c in data["clips"].items()}
    return data


def record(folders: Sequence[Path], clips: Sequence[Clip]) -> list[dict[str, Any]]:
    """What a model is trained on: for each folder given to :func:`find_clips` its ``name``, and of
    the clips used from it ``clips``: a list of names for each subject."""
    data = []
    for folder in folders:
        by_subject: dict[str, list[str]] = {}
        for clip in clips:
            if clip.path.is_relative_to(folder):
                # Not clip.name, which depends on what other folders were given.
                name = clip.path.relative_to(folder).as_posix()
                by_subject.setdefault(clip.subject, []).append(name if name != "." else clip.name)
        data.append({"name": folder.resolve().name, "clips": by_subject})
    return data


class Names(NamedTuple):
    """Names of clips (as in their folders) and of subjects."""

    clips: set[str]
    subjects: set[str]


def recorded(data: Sequence[Mapping[str, Any]]) -> Names:
    """The names in such a record; entries without clips add none."""
    pairs = [item for entry in data for item in entry.get("clips", {}).items()]
    return Names({name for _, names in pairs for name in names}, {subject for subject, _ in pairs})
