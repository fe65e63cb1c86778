"""Import of public First Order Motion Model checkpoints (Siarohin et al., NeurIPS 2019).

Such a file holds the state dicts ``generator`` and ``kp_detector``; a YAML file gives their sizes.
The tensors get our names. Two geometries (training/models/geometry.py) keep the arithmetic that
they were trained with, which no file states: grid_sample changed its meaning with torch 1.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from ..runtime.support.dataclass_parser import nearest
from ..runtime.support.errors import CheckpointError, ConfigError, OutputError
from ..training.checkpoint import Checkpoint
from ..training.config import Config
from ..training.config_file import load_config
from ..training.models.keypoints.model import AnimationModel
from ..training.weights_file import read_weights_only

NETWORKS = ("generator", "kp_detector")
GEOMETRIES = {"trained-before-torch-1.3": "fomm_aligned", "later": "fomm_unaligned"}
LICENCE = "not stated in the file; FOMM's authors publish theirs as CC BY-NC"

_MOTION, _JACOBIAN = "generator/dense_motion_network.", "kp_detector/jacobian"
_SECTIONS = ("common_params", "kp_detector_params", "generator_params")
_DENSE = "generator_params.dense_motion_params"
_JACOBIANS = "common_params.estimate_jacobian"
_ONE_JACOBIAN = "kp_detector_params.single_jacobian_map"
_OCCLUSION = "generator_params.estimate_occlusion_map"

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
    _JACOBIANS: ("", [True, False], False),
    "kp_detector_params.temperature": ("keypoints.temperature", (1e-4, 1e4), _NEEDED),
    "kp_detector_params.block_expansion": ("keypoints.width", _WIDTH, _NEEDED),
    "kp_detector_params.max_features": ("keypoints.max_features", _WIDTH, _NEEDED),
    "kp_detector_params.num_blocks": ("keypoints.depth", _DEPTH, _NEEDED),
    "kp_detector_params.scale_factor": ("", [0.25], 1),
    "kp_detector_params.pad": ("", [0], 0),
    _ONE_JACOBIAN: ("", [True, False], False),
    "generator_params.block_expansion": ("generator.width", _WIDTH, _NEEDED),
    "generator_params.max_features": ("generator.max_features", _WIDTH, _NEEDED),
    "generator_params.num_down_blocks": ("generator.downs", range(1, 6), _NEEDED),
    "generator_params.num_bottleneck_blocks": ("generator.blocks", range(1, 65), _NEEDED),
    _OCCLUSION: ("", [True, False], False),
    f"{_DENSE}.block_expansion": ("motion.width", _WIDTH, _NEEDED),
    f"{_DENSE}.max_features": ("motion.max_features", _WIDTH, _NEEDED),
    f"{_DENSE}.num_blocks": ("motion.depth", _DEPTH, _NEEDED),
    f"{_DENSE}.scale_factor": ("", [0.25], 1),
    f"{_DENSE}.kp_variance": ("motion.variance", (1e-6, 1.0), 0.01),
}

# By the key that says whether a model has it: a layer, and the bias that, with a weight of zero,
# stands in for it where not. Jacobians are the identity; nothing is occluded (sigmoid(30) is 1).
OPTIONAL = {
    _JACOBIANS: (_JACOBIAN, (1.0, 0.0, 0.0, 1.0)),
    _OCCLUSION: (f"{_MOTION}occlusion", (30.0,)),
}


class Fomm(NamedTuple):
    """What a FOMM YAML file says."""

    config: Config
    stand_ins: dict[str, tuple[float, ...]]  # layers that the model does not have, and their bias
    one_jacobian: bool  # one map of jacobians, for all keypoints


def import_fomm(
    pth: Path, config_yaml: Path, out: Path, sampling: str = "trained-before-torch-1.3"
) -> str:
    """Turn a public FOMM checkpoint into a sonomime checkpoint.

    Args:
        pth: the ``.pth.tar`` file; entries other than the two networks are ignored.
        config_yaml: the YAML file it was trained with; other sections are ignored.
        out: the checkpoint to write: 256x256, step 0. The weights are unchanged; what the model
            lacks gets weights that compute the same.
        sampling: a key of GEOMETRIES.

    Returns:
        the checkpoint's geometry.

    Raises:
        CheckpointError: unreadable, a pickle that would run code, or a tensor of the two networks
            that is missing, left over or of another shape; names the keys.
        ConfigError: an unreadable YAML file, an unknown or missing key, an unsupported value.
        OutputError: ``out`` cannot be written.
    """
    if out.resolve() in (pth.resolve(), config_yaml.resolve()):
        raise OutputError(f"cannot write {out}: it is what is read", "choose another name with -o")
    geometry = GEOMETRIES[sampling]
    fomm = read_fomm_config(config_yaml, geometry)
    payload = read_weights_only(pth, "only import checkpoints from a source that you trust")
    weights = rename(_networks(payload, pth), fomm, pth)
    origin = {"name": f"FOMM checkpoint {pth.name}", "licence": LICENCE}
    Checkpoint(fomm.config, 0, weights, data=[origin]).save(out)
    return geometry


def read_fomm_config(path: Path, geometry: str = "fomm_aligned") -> Fomm:
    """Our configuration for a FOMM YAML file, and what its networks lack.

    Raises:
        ConfigError: naming the key at fault.
    """
    cure = "give the YAML file that the checkpoint came with"
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file", "check the path") from error
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
    overrides = [f"model.geometry={geometry}"]
    for key, (ours, supported, default) in KEYS.items():
        value = given.setdefault(key, default)
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
    stand_ins = dict(stand_in for key, stand_in in OPTIONAL.items() if not given[key])
    return Fomm(load_config("fomm", overrides), stand_ins, given[_ONE_JACOBIAN])


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


def rename(tensors: Mapping[str, Tensor], fomm: Fomm, path: Path) -> dict[str, Tensor]:
    """The tensors ``NETWORK/KEY`` of a FOMM checkpoint under our names, float32.

    BatchNorm's ``num_batches_tracked``, which old files lack, becomes 0 when absent. One jacobian
    map is repeated for each keypoint.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape than ``fomm`` says.
    """
    model = fomm.config.model
    with torch.device("meta"):  # shapes alone
        wanted = AnimationModel(model).state_dict()
    missing, misshapen, left_over = [], [], set(tensors)
    weights: dict[str, Tensor] = {}
    for ours, like in wanted.items():
        theirs = fomm_name(ours)
        layer, _, kind = theirs.rpartition(".")
        if (bias := fomm.stand_ins.get(layer)) is not None:
            weights[ours] = torch.zeros(like.shape)
            if kind == "bias":
                weights[ours].view(-1, len(bias))[:] = torch.tensor(bias)
            continue
        left_over.discard(theirs)
        found = tensors.get(theirs)
        times = model.keypoints.count if fomm.one_jacobian and layer == _JACOBIAN else 1
        shape = [*like.shape] if times == 1 else [len(like) // times, *like.shape[1:]]
        if found is None and kind == "num_batches_tracked":
            weights[ours] = torch.zeros((), dtype=torch.int64)
        elif found is None:
            missing.append(theirs)
        elif [*found.shape] != shape:
            misshapen.append(f"{theirs} is {list(found.shape)}, not {shape}")
        else:
            tensor = found.detach().to(like.dtype, copy=True).contiguous()
            weights[ours] = tensor if times == 1 else torch.cat([tensor] * times)
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
