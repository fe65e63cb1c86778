"""Import of public First Order Motion Model checkpoints (Siarohin et al., NeurIPS 2019).

Such a file holds the state dicts ``generator`` and ``kp_detector``; a YAML file gives their sizes.
The tensors get our names. The geometry ``fomm`` (training/models/geometry.py) keeps the arithmetic
that they were trained with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..runtime.support.dataclass_parser import StrictError, parse
from ..runtime.support.errors import CheckpointError, ConfigError, OutputError
from ..training.checkpoint import Checkpoint
from ..training.config import (
    Config,
    GeneratorConfig,
    KeypointConfig,
    ModelConfig,
    MotionConfig,
    check,
    load_config,
)
from ..training.models.keypoints.model import AnimationModel
from ..training.weights_file import read_weights_only

NETWORKS = ("generator", "kp_detector")
LICENCE = "not stated in the file; FOMM's authors publish theirs as CC BY-NC"

_MOTION = "generator/dense_motion_network."

#: From our tensors' names to theirs, ``NETWORK/KEY``: the first prefix that fits is replaced.
PREFIXES = {
    "keypoint_detector.hourglass.downs.": "kp_detector/predictor.encoder.down_blocks.",
    "keypoint_detector.hourglass.ups.": "kp_detector/predictor.decoder.up_blocks.",
    "keypoint_detector.heatmap.": "kp_detector/kp.",
    "keypoint_detector.": "kp_detector/",
    "down.": f"{_MOTION}down.",
    "dense_motion.hourglass.downs.": f"{_MOTION}hourglass.encoder.down_blocks.",
    "dense_motion.hourglass.ups.": f"{_MOTION}hourglass.decoder.up_blocks.",
    "dense_motion.": _MOTION,
    "generator.downs.": "generator/down_blocks.",
    "generator.bottleneck.": "generator/bottleneck.r",
    "generator.content.ups.": "generator/up_blocks.",
    "generator.content.": "generator/",
    "generator.": "generator/",
}


def _within(low: float, high: float, **default: float) -> Any:
    return field(metadata={"within": (low, high)}, **default)


def _one_of(*values: Any, **default: Any) -> Any:
    return field(metadata={"one_of": values}, **default)


# The part of FOMM's YAML that shapes the two networks, with FOMM's defaults and what we support.
@dataclass(frozen=True)
class _Common:
    num_kp: int = _within(1, 1024)
    num_channels: int = _one_of(1, 3)
    estimate_jacobian: bool = _one_of(True, default=False)


@dataclass(frozen=True)
class _KeypointDetector:
    temperature: float = _within(1e-4, 1e4)
    block_expansion: int = _within(1, 4096)
    max_features: int = _within(1, 4096)
    num_blocks: int = _within(1, 6)
    scale_factor: float = _one_of(0.25, default=1.0)
    pad: int = _one_of(0, default=0)
    single_jacobian_map: bool = _one_of(False, default=False)


@dataclass(frozen=True)
class _DenseMotion:
    block_expansion: int = _within(1, 4096)
    max_features: int = _within(1, 4096)
    num_blocks: int = _within(1, 6)
    scale_factor: float = _one_of(0.25, default=1.0)
    kp_variance: float = _within(1e-6, 1.0, default=0.01)


@dataclass(frozen=True)
class _Generator:
    block_expansion: int = _within(1, 4096)
    max_features: int = _within(1, 4096)
    num_down_blocks: int = _within(1, 5)
    num_bottleneck_blocks: int = _within(1, 64)
    dense_motion_params: _DenseMotion = field()
    estimate_occlusion_map: bool = _one_of(True, default=False)


@dataclass(frozen=True)
class _ModelParams:
    common_params: _Common
    kp_detector_params: _KeypointDetector
    generator_params: _Generator


def import_fomm(pth: Path, config_yaml: Path, out: Path) -> None:
    """Turn a public FOMM checkpoint into a sonomime checkpoint.

    Args:
        pth: the ``.pth.tar`` file; entries other than the two networks are ignored.
        config_yaml: the YAML file it was trained with; other sections are ignored.
        out: the checkpoint to write: geometry ``fomm``, 256x256, step 0, the weights unchanged.

    Raises:
        CheckpointError: unreadable, a pickle that would run code, or a tensor of the two networks
            that is missing, left over or of another shape; names the keys.
        ConfigError: an unreadable YAML file, an unknown or missing key, an unsupported value.
        OutputError: ``out`` cannot be written.
    """
    if out.resolve() in (pth.resolve(), config_yaml.resolve()):
        raise OutputError(f"cannot write {out}: it is what is read", "choose another name with -o")
    config = read_fomm_config(config_yaml)
    payload = read_weights_only(pth, "only import checkpoints from a source that you trust")
    weights = rename(_networks(payload, pth), config.model, pth)
    origin = {"name": f"FOMM checkpoint {pth.name}", "licence": LICENCE}
    Checkpoint(config, 0, weights, data=[origin]).save(out)


def read_fomm_config(path: Path) -> Config:
    """Our configuration for a FOMM YAML file.

    Raises:
        ConfigError: naming the key at fault.
    """
    cure = "give the YAML file that the checkpoint came with"
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", cure) from error
    except Exception as error:  # PyYAML lets many kinds out, for a malformed timestamp say
        raise ConfigError(f"{path}: not a readable YAML file: {error}", cure) from error
    params = table.get("model_params") if isinstance(table, Mapping) else None
    if not isinstance(params, Mapping):
        raise ConfigError(f"{path}: no section model_params", cure)
    wanted = [f.name for f in dataclasses.fields(_ModelParams)]
    try:
        read = parse(_ModelParams, {k: params[k] for k in wanted if k in params}, "model_params")
    except StrictError as error:
        raise ConfigError(f"{path}: {error}", error.hint or cure) from error
    _refuse_unsupported(read, f"{path}: model_params")
    config = dataclasses.replace(load_config("fomm"), model=_model_config(read))
    check(config)
    return config


def _refuse_unsupported(section: Any, where: str) -> None:
    for known in dataclasses.fields(section):
        value, name = getattr(section, known.name), f"{where}.{known.name}"
        if dataclasses.is_dataclass(value):
            _refuse_unsupported(value, name)
        elif "one_of" in known.metadata:
            choices = known.metadata["one_of"]
            _refuse_unless(value in choices, name, value, " or ".join(map(_yaml, choices)))
        else:
            low, high = known.metadata["within"]
            _refuse_unless(low <= value <= high, name, value, f"{low} to {high}")


def _refuse_unless(holds: bool, name: str, value: Any, supported: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {_yaml(value)} is not supported", f"supported: {supported}")


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _model_config(params: _ModelParams) -> ModelConfig:
    detector, generator = params.kp_detector_params, params.generator_params
    motion = generator.dense_motion_params
    return ModelConfig(
        image_size=256,
        channels=params.common_params.num_channels,
        geometry="fomm",
        keypoints=KeypointConfig(
            self_supervised=params.common_params.num_kp,
            supervised=0,
            width=detector.block_expansion,
            max_features=detector.max_features,
            depth=detector.num_blocks,
            temperature=detector.temperature,
        ),
        motion=MotionConfig(
            width=motion.block_expansion,
            max_features=motion.max_features,
            depth=motion.num_blocks,
            variance=motion.kp_variance,
        ),
        generator=GeneratorConfig(
            kind="single",
            width=generator.block_expansion,
            max_features=generator.max_features,
            downs=generator.num_down_blocks,
            blocks=generator.num_bottleneck_blocks,
        ),
    )


def fomm_name(name: str) -> str:
    """FOMM's name, ``NETWORK/KEY``, of a tensor of our ``AnimationModel``."""
    ours = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    return PREFIXES[ours] + name.removeprefix(ours)


def rename(tensors: Mapping[str, Tensor], model: ModelConfig, path: Path) -> dict[str, Tensor]:
    """The tensors ``NETWORK/KEY`` of a FOMM checkpoint under our names, float32.

    BatchNorm's ``num_batches_tracked``, which old files lack, becomes 0 when absent.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape than ``model`` says.
    """
    with torch.device("meta"):  # shapes alone
        wanted = AnimationModel(model).state_dict()
    missing, misshapen = [], []
    left_over = set(tensors)
    weights: dict[str, Tensor] = {}
    for ours, like in wanted.items():
        theirs = fomm_name(ours)
        left_over.discard(theirs)
        found = tensors.get(theirs)
        if found is None and ours.endswith(".num_batches_tracked"):
            weights[ours] = torch.zeros((), dtype=torch.int64)
        elif found is None:
            missing.append(theirs)
        elif found.shape != like.shape:
            misshapen.append(f"{theirs} is {_size(found)}, not {_size(like)}")
        else:
            weights[ours] = found.detach().to(like.dtype, copy=True).contiguous()
    for problem, keys in (
        ("lacks", missing),
        ("has tensors that the configuration does not have:", sorted(left_over)),
        ("has other shapes than the configuration:", misshapen),
    ):
        if keys:
            shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
            raise CheckpointError(
                f"{path}: {problem} {shown}", "give the YAML file that this checkpoint came with"
            )
    return weights


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"


def _networks(payload: Any, path: Path) -> dict[str, Tensor]:
    """Both state dicts in one, under ``NETWORK/KEY``."""
    tensors: dict[str, Tensor] = {}
    for network in NETWORKS:
        state = payload.get(network) if isinstance(payload, Mapping) else None
        if not isinstance(state, Mapping):
            raise CheckpointError(
                f"{path}: not a FOMM checkpoint: it has no entry {network!r}",
                "a dict with 'generator' and 'kp_detector' is expected",
            )
        for key, value in state.items():
            if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_meta:
                problem = f"{network}/{key} is not a tensor of plain numbers"
                raise CheckpointError(f"{path}: {problem}", "copy the file again")
            tensors[f"{network}/{key}"] = value
    return tensors
