"""Import of public First Order Motion Model checkpoints (Siarohin et al., NeurIPS 2019).

Such a file holds the state dicts ``generator`` and ``kp_detector``; a YAML file gives their sizes.
The tensors get our names. The geometry ``fomm`` (training/models/geometry.py) keeps the arithmetic
that they were trained with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ..runtime.support.dataclass_parser import nearest
from ..runtime.support.errors import CheckpointError, ConfigError, OutputError
from ..training.checkpoint import Checkpoint
from ..training.config import Config, ModelConfig, load_config
from ..training.models.keypoints.model import AnimationModel
from ..training.weights_file import read_weights_only

NETWORKS = ("generator", "kp_detector")
LICENCE = "not stated in the file; FOMM's authors publish theirs as CC BY-NC"

_MOTION = "generator/dense_motion_network."
_SECTIONS = ("common_params", "kp_detector_params", "generator_params")
_DENSE = "generator_params.dense_motion_params"

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

_NEEDED = object()
_WIDTH, _DEPTH = range(1, 4097), range(1, 7)

# Every key of FOMM's YAML that shapes the two networks: our setting, if we have a choice; what we
# support, which is a range of integers, a span of numbers (a tuple) or a list; FOMM's default.
KEYS: dict[str, tuple[str, Any, Any]] = {
    "common_params.num_kp": ("keypoints.self_supervised", range(1, 1025), _NEEDED),
    "common_params.num_channels": ("channels", [1, 3], _NEEDED),
    "common_params.estimate_jacobian": ("", [True], False),
    "kp_detector_params.temperature": ("keypoints.temperature", (1e-4, 1e4), _NEEDED),
    "kp_detector_params.block_expansion": ("keypoints.width", _WIDTH, _NEEDED),
    "kp_detector_params.max_features": ("keypoints.max_features", _WIDTH, _NEEDED),
    "kp_detector_params.num_blocks": ("keypoints.depth", _DEPTH, _NEEDED),
    "kp_detector_params.scale_factor": ("", [0.25], 1),
    "kp_detector_params.pad": ("", [0], 0),
    "kp_detector_params.single_jacobian_map": ("", [False], False),
    "generator_params.block_expansion": ("generator.width", _WIDTH, _NEEDED),
    "generator_params.max_features": ("generator.max_features", _WIDTH, _NEEDED),
    "generator_params.num_down_blocks": ("generator.downs", range(1, 6), _NEEDED),
    "generator_params.num_bottleneck_blocks": ("generator.blocks", range(1, 65), _NEEDED),
    "generator_params.estimate_occlusion_map": ("", [True], False),
    f"{_DENSE}.block_expansion": ("motion.width", _WIDTH, _NEEDED),
    f"{_DENSE}.max_features": ("motion.max_features", _WIDTH, _NEEDED),
    f"{_DENSE}.num_blocks": ("motion.depth", _DEPTH, _NEEDED),
    f"{_DENSE}.scale_factor": ("", [0.25], 1),
    f"{_DENSE}.kp_variance": ("motion.variance", (1e-6, 1.0), 0.01),
}


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
    except Exception as error:  # PyYAML lets many kinds out, for a malformed timestamp say
        raise ConfigError(f"{path} is not a readable YAML file: {error}", cure) from error
    params = table.get("model_params") if isinstance(table, Mapping) else None
    if not isinstance(params, Mapping):
        raise ConfigError(f"{path}: no section model_params", cure)
    where = f"{path}: model_params."
    given = dict(_flat({name: params[name] for name in _SECTIONS if name in params}, where))
    for key in given:
        if key not in KEYS:
            hint = f"did you mean {close!r}?" if (close := nearest(key, KEYS)) else cure
            raise ConfigError(f"{where}{key[:100]} is not known", hint)
    overrides = ["model.geometry=fomm"]
    for key, (ours, supported, default) in KEYS.items():
        value = given.get(key, default)
        if value is _NEEDED:
            raise ConfigError(f"{where}{key} is missing", cure)
        if not _holds(supported, value):
            if isinstance(supported, list):
                known = " or ".join(map(_yaml, supported))
            else:
                kind = "an integer" if isinstance(supported, range) else "a number"
                known = f"{kind} from {min(supported)} to {max(supported)}"
            raise ConfigError(
                f"{where}{key} = {_yaml(value)} is not supported", f"supported: {known}"
            )
        if ours:
            overrides.append(f"model.{ours}={value}")
    return load_config("fomm", overrides)


def _flat(table: Mapping[Any, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of all sections, by ``section.key``; ``where`` they are, for messages."""
    for key, value in table.items():
        name = f"{prefix}{key}"
        if name in (*_SECTIONS, _DENSE):
            if not isinstance(value, Mapping):
                fault = f"{where}{name} = {_yaml(value)} is not a table of settings"
                raise ConfigError(fault, "give the YAML file that the checkpoint came with")
            yield from _flat(value, where, f"{name}.")
        else:
            yield name, value


def _holds(supported: Any, value: Any) -> bool:
    if isinstance(supported, list):
        return repr(value) in map(repr, supported)  # True is not 1
    if isinstance(supported, range):
        return type(value) is int and value in supported
    return type(value) in (int, float) and min(supported) <= value <= max(supported)


def _yaml(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "nothing" if value is None else str(value).lower()
    return repr(value)[:100]


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
    left_over = tensors.keys() - {fomm_name(ours) for ours in wanted}
    weights: dict[str, Tensor] = {}
    for ours, like in wanted.items():
        theirs = fomm_name(ours)
        found = tensors.get(theirs)
        if found is None and ours.endswith(".num_batches_tracked"):
            weights[ours] = torch.zeros((), dtype=torch.int64)
        elif found is None:
            missing.append(theirs)
        elif found.shape != like.shape:
            misshapen.append(f"{theirs} is {list(found.shape)}, not {list(like.shape)}")
        else:
            weights[ours] = found.detach().to(like.dtype, copy=True).contiguous()
    hint = "give the YAML file that this checkpoint came with"
    for problem, keys in (
        ("lacks", missing),
        ("has tensors that the configuration does not have:", sorted(left_over)),
        ("has other shapes than the configuration:", misshapen),
    ):
        if keys:
            more = f" and {len(keys) - 8} more" if len(keys) > 8 else ""
            raise CheckpointError(f"{path}: {problem} {', '.join(keys[:8])}{more}", hint)
    return weights


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
