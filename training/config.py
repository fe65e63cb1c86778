"""Configuration: frozen dataclasses read from TOML, strictly.

A preset is a TOML file in ``presets/``; ``--set section.key=value`` overrides a value. The resolved
configuration is kept in the checkpoint and the bundle. Every number is 0 or more, unless its field
says otherwise (:func:`_within`).
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..runtime.bundle.checks import most_numbers
from ..runtime.support.dataclass_parser import StrictError, parse
from ..runtime.support.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"

Family = Literal["keypoints", "matching"]

# Settings of one family; `load_config` refuses them for the other.
_KEYPOINTS: dict[str, Family] = {"family": "keypoints"}
_MATCHING: dict[str, Family] = {"family": "matching"}
_TINY = 1e-9  # the least value of what must not be 0
_FIX = "fix it in the TOML file or with --set"


def _only(family: dict[str, Family], default: Any) -> Any:
    return field(default=default, metadata=family)


def _within(least: float, most: float, default: Any, **family: Family) -> Any:
    """A number (or each of two) from `least` to `most`."""
    return field(default=default, metadata={"range": (least, most), **family})


def _above_0(default: Any, **family: Family) -> Any:
    return _within(_TINY, math.inf, default, **family)


def _size(default: int) -> Any:
    return _within(1, 4096, default)


@dataclass(frozen=True)
class KeypointConfig:
    self_supervised: int = _within(0, 1024, 10)
    supervised: int = _within(0, 1024, 2)  # they come last
    width: int = _size(32)
    max_features: int = _size(1024)
    depth: int = _within(1, 10, 5)
    head_kernel: int = _within(1, 63, 7)  # odd
    temperature: float = _above_0(0.1)

    @property
    def count(self) -> int:
        return self.self_supervised + self.supervised


@dataclass(frozen=True)
class MotionConfig:
    width: int = _size(64)
    max_features: int = _size(1024)
    depth: int = _within(1, 10, 5)
    head_kernel: int = _within(1, 63, 7)  # odd
    variance: float = _above_0(0.01)


@dataclass(frozen=True)
class GeneratorConfig:
    kind: Literal["single", "dual"] = "dual"
    width: int = _within(2, 4096, 64)
    max_features: int = _size(512)
    downs: int = _within(1, 8, 2)
    blocks: int = _within(0, 100, 6)
    bottleneck: Literal["shared", "split"] = "shared"
    upsample: Literal["nearest", "bilinear"] = "nearest"
    fusion: Literal["pixel", "logit"] = "pixel"


@dataclass(frozen=True)
class MatcherConfig:
    fine: int = _size(32)  # channels of the descriptors at a quarter of the size
    coarse: int = _size(64)  # and at an eighth
    grid: int = _within(4, 4096, 32)  # cells a side of the displacement that is passed on
    stiff: int = _size(16)  # cells a side of the displacement that moves the texture
    shading: int = 16  # cells a side of the shading that is passed on; 0: none


@dataclass(frozen=True)
class CorrectorConfig:
    width: int = _size(32)
    blocks: int = _within(0, 100, 2)


@dataclass(frozen=True)
class LandmarkConfig:
    count: int = _within(0, 1024, 0)  # landmarks to find; 0: as many as the data labels
    width: int = _size(24)


@dataclass(frozen=True)
class DiscriminatorConfig:
    width: int = _size(64)
    max_features: int = _size(512)
    blocks: int = _within(1, 10, 4)


@dataclass(frozen=True)
class ModelConfig:
    family: Family = "keypoints"
    image_size: int = _size(256)
    channels: Literal[1, 3] = 1
    geometry: Literal["half_pixel", "fomm"] = "half_pixel"
    keypoints: KeypointConfig = field(default=KeypointConfig(), metadata=_KEYPOINTS)
    motion: MotionConfig = field(default=MotionConfig(), metadata=_KEYPOINTS)
    generator: GeneratorConfig = field(default=GeneratorConfig(), metadata=_KEYPOINTS)
    discriminator: DiscriminatorConfig = field(default=DiscriminatorConfig(), metadata=_KEYPOINTS)
    matcher: MatcherConfig = field(default=MatcherConfig(), metadata=_MATCHING)
    corrector: CorrectorConfig = field(default=CorrectorConfig(), metadata=_MATCHING)
    landmarks: LandmarkConfig = field(default=LandmarkConfig(), metadata=_MATCHING)


@dataclass(frozen=True)
class LossConfig:
    """Weights (docs/method.md: "Losses of the keypoint models", "Lite"); 0 leaves a loss out."""

    equivariance_value: float = _only(_KEYPOINTS, 10.0)
    equivariance_jacobian: float = _only(_KEYPOINTS, 10.0)
    equivariance_on: Literal["self_supervised", "all"] = _only(_KEYPOINTS, "all")
    supervision: float = _only(_KEYPOINTS, 100.0)
    supervision_variance: float = _above_0(0.1, **_KEYPOINTS)
    content: float = _only(_KEYPOINTS, 10.0)
    reconstruction: float = _only(_KEYPOINTS, 0.0)  # L1 of the final image over the same scales
    perceptual: float = _only(_KEYPOINTS, 10.0)
    perceptual_network: Literal["vgg19", "squeezenet", "none"] = _only(_KEYPOINTS, "none")
    perceptual_weights: str = _only(_KEYPOINTS, "")  # path of the network's weights
    perceptual_scales: int = _within(1, 6, 4, **_KEYPOINTS)
    adversarial: float = _only(_KEYPOINTS, 0.0)
    feature_matching: float = _only(_KEYPOINTS, 0.0)
    flow: float = _only(_MATCHING, 0.0)  # displacements against the known flow, at first
    flow_until: int = _only(_MATCHING, 0)  # step at which its weight reaches 0; 0: constant
    flow_exact: float = _only(_MATCHING, 0.0)  # least weight where flow is exact, not measured
    doubt: float = _only(_MATCHING, 0.1)  # how well a match knows its own error
    folding: float = _only(_MATCHING, 5.0)
    roughness: float = _only(_MATCHING, 0.05)
    pixels: float = _above_0(4.0, **_MATCHING)  # L1, relative to holding still
    structure: float = _only(_MATCHING, 4.0)  # the same of locally normalised frames
    pixels_from: int = _only(_MATCHING, 0)  # step from which pixels count
    sharpness: float = _only(_MATCHING, 0.0)  # local energy of the finest details, from then on
    landmarks: float = _only(_MATCHING, 0.0)  # places of labelled landmarks, and their presence


@dataclass(frozen=True)
class TrainConfig:
    max_steps: int = 0  # 0: as many as `epochs` says; a run in progress has its number here
    epochs: int = _within(1, math.inf, 50)  # in each, as many pairs as clips, num_repeats times
    num_repeats: int = _within(1, math.inf, 75)
    batch_size: int = _within(1, math.inf, 20)  # of all processes and all parts together
    accumulate: int = _within(1, math.inf, 1)  # parts of a process's share, one after the other
    learning_rate: float = _above_0(2e-4)
    schedule: Literal["constant", "cosine", "milestones"] = "constant"
    milestones: tuple[float, ...] = _within(0, 1, (0.6, 0.9))  # shares of the run: a tenth each
    warmup: int = 0
    beta1: float = _within(0, 1 - _TINY, 0.5)
    beta2: float = _within(0, 1 - _TINY, 0.999)
    grad_clip: float = _above_0(10.0)  # infinity norm, per network
    ema: float = _within(0, 1 - _TINY, 0.999)
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"  # fp16: on a GPU alone
    seed: int = _within(0, 2**32 - 1, 0)
    log_every: int = _within(1, math.inf, 20)
    picture_every: int = _within(1, math.inf, 500)
    checkpoint_every: int = _within(1, math.inf, 1000)
    batchnorm_batches: int = 50  # batches that re-estimate BatchNorm for the EMA weights
    batchnorm: Literal["batch", "frozen"] = "batch"  # frozen: keep the statistics of --from


@dataclass(frozen=True)
class DataConfig:
    """How pairs are drawn: factors from low to high, shift as a fraction, rotation in degrees."""

    workers: int = 0  # threads that prepare batches; 0: one, on a GPU up to eight
    augment: bool = True
    flip: bool = True
    scale: tuple[float, float] = _above_0((0.8, 1.2))
    shift: float = 0.1
    rotation: float = 10.0
    gain: tuple[float, float] = _above_0((0.7, 1.4))
    gamma: tuple[float, float] = _above_0((0.8, 1.25))
    synthetic: float = _within(0, 1, 0.0)  # share of pairs of a frame and its own random bend
    synthetic_until: int = 0  # step from which there are none; 0: always
    flow: Literal["none", "dis"] = _only(_MATCHING, "none")
    near_start: int = _within(1, math.inf, 4)
    near_steps: int = 0
    labelled_fraction: float = _within(0, 1, 0.5)
    bend: float = 0.16  # synthetic pairs: greatest displacement, in points
    speckle: float = _within(0, 1, 1.0)  # synthetic pairs: least correlation of their speckle
    light: float = 0.0  # synthetic pairs: standard deviation of the log of either frame's gain
    blackout: float = _within(0, 1, 0.0)  # synthetic pairs: share in which a block is hidden


@dataclass(frozen=True)
class Config:
    preset: str = ""
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    data: DataConfig = DataConfig()


def preset_names() -> list[str]:
    """Names of the presets that come with sonomime."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def load_config(preset_or_toml: str, overrides: Sequence[str] = ()) -> Config:
    """Read a preset by name or a TOML file by path, then apply ``section.key=value`` overrides.

    Raises:
        ConfigError: unknown preset, unreadable file, unknown key, wrong type or value, a setting
            of another family.
    """
    path = Path(preset_or_toml)
    if preset_or_toml in preset_names():
        path = PRESETS / f"{preset_or_toml}.toml"
    elif not os.path.isfile(path):  # Path.is_file raises for a name that is too long
        hint = f"presets: {', '.join(preset_names())}"
        raise ConfigError(f"no preset or TOML file named {preset_or_toml!r}", hint)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}", "fix the file") from error
    config = config_from_dict(table, where=str(path))
    for override in overrides:
        _apply(table, override)
        config = config_from_dict(table, where=f"--set {override}")
    by_epochs = ("train.epochs=", "train.num_repeats=")
    if config.train.max_steps > 0 and any(each.startswith(by_epochs) for each in overrides):
        fault = f"train.max_steps is {config.train.max_steps}, so epochs would count for nothing"
        raise ConfigError(fault, "add --set train.max_steps=0 to go by epochs")
    family = config.model.family
    for name, _, facts in settings(config):
        given: Any = table
        for key in name.split("."):
            given = given.get(key, {})
        if given != {} and (owner := facts.get("family", family)) != family:
            raise ConfigError(
                f"{name} is a setting of the family {owner!r}; this model's is {family!r}",
                "remove it, since it would do nothing; model.family is the model's family",
            )
    if not config.preset:
        config = dataclasses.replace(config, preset=path.stem)
    check(config)
    return config


def _apply(table: dict[str, Any], override: str) -> None:
    """Put the value of ``section.key=value`` into nested tables, in place."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not KEY=VALUE", "e.g. --set train.max_steps=9")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text  # a bare word is a string
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{key}: {section!r} is not a section", "see docs/training.md")
    table[last] = value


def settings(
    section: Any, prefix: str = "", **above: Any
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, value and facts (family, range) of every setting of a section and of those below it."""
    for known in dataclasses.fields(section):
        name, value = f"{prefix}{known.name}", getattr(section, known.name)
        facts = {**above, **known.metadata}
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{name}.", **facts)
        else:
            yield name, value, facts


def config_from_dict(table: Mapping[str, Any], where: str = "config") -> Config:
    """Build a Config from nested tables, refusing unknown keys and wrong types (ConfigError)."""
    try:
        return parse(Config, table)
    except StrictError as error:
        raise ConfigError(f"{where}: {error}", error.hint or "fix the value") from error


def check(config: Config) -> None:
    """Refuse values out of range, and settings that do not fit together (ConfigError)."""
    model = config.model
    for name, value, facts in settings(config):
        if facts.get("family", model.family) != model.family or isinstance(value, str):
            continue
        least, most = facts.get("range", (0, math.inf))
        numbers = value if isinstance(value, tuple) else (value,)
        if not all(least <= number <= most for number in numbers):
            wanted = f"at least {least:g}" if most == math.inf else f"from {least:g} to {most:.10g}"
            raise ConfigError(f"{name} is {value}; it must be {wanted}", _FIX)
        if list(numbers) != sorted(numbers):
            raise ConfigError(f"{name} is {value}; the lower one comes first", _FIX)
    rules = _matching_rules if model.family == "matching" else _keypoint_rules
    for holds, sentence in rules(config):
        if not holds:
            raise ConfigError(sentence, _FIX)


def _keypoint_rules(config: Config) -> list[tuple[bool, str]]:
    points, motion, loss = config.model.keypoints, config.model.motion, config.loss
    fits = 4 * 2 ** max(points.depth, motion.depth)
    alone = points.self_supervised >= 1 or loss.equivariance_on == "all"
    network = loss.perceptual_network
    weights = network == "none" or loss.perceptual_weights != ""
    return [
        (config.model.image_size % fits == 0, f"model.image_size must be a multiple of {fits}"),
        (points.count >= 1, "model.keypoints: at least one keypoint is needed"),
        (alone, "loss.equivariance_on must be all where no keypoint is self-supervised"),
        (points.head_kernel * motion.head_kernel % 2 == 1, "model.*.head_kernel must be odd"),
        (weights, f"loss.perceptual_network={network} needs loss.perceptual_weights=PATH"),
    ]


def _matching_rules(config: Config) -> list[tuple[bool, str]]:
    model, matcher = config.model, config.model.matcher
    size, grid = model.image_size, matcher.grid
    passed, most = 3 * grid**2 + max(1, matcher.shading) ** 2, most_numbers(size)
    return [
        (size % 64 == 0, "model.image_size must be a multiple of 64"),
        (model.geometry == "half_pixel", "model.geometry must be half_pixel to match"),
        (size // 8 % grid == 0, f"model.matcher.grid must divide {size // 8}, the size / 8"),
        (grid % matcher.stiff == 0, "model.matcher.stiff must divide model.matcher.grid"),
        (grid % (matcher.shading or 1) == 0, "model.matcher.shading must divide its grid"),
        (passed <= most, f"model.matcher passes {passed} numbers a frame, {most} are allowed"),
    ]
