"""Configuration: frozen dataclasses read from TOML, strictly.

A preset is a TOML file in ``presets/``; ``--set section.key=value`` overrides a value. An unknown
key is an error that names the nearest one. The resolved configuration is kept in the run, the
checkpoint and the bundle.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..runtime.bundle.checks import most_numbers
from ..runtime.support.dataclass_parser import StrictError, parse, plain
from ..runtime.support.errors import ConfigError
from .overrides import apply_override, refuse_other_families

PRESETS = Path(__file__).parent / "presets"

Family = Literal["keypoints", "matching"]


# What one family has alone; `load_config` refuses it for another.
_KEYPOINTS: dict[str, Family] = {"family": "keypoints"}
_MATCHING: dict[str, Family] = {"family": "matching"}


def _only(family: dict[str, Family], default: Any) -> Any:
    return field(default=default, metadata=family)


@dataclass(frozen=True)
class KeypointConfig:
    self_supervised: int = 10
    supervised: int = 2  # they come last
    width: int = 32
    max_features: int = 1024
    depth: int = 5
    head_kernel: int = 7
    temperature: float = 0.1

    @property
    def count(self) -> int:
        return self.self_supervised + self.supervised


@dataclass(frozen=True)
class MotionConfig:
    width: int = 64
    max_features: int = 1024
    depth: int = 5
    head_kernel: int = 7
    variance: float = 0.01


@dataclass(frozen=True)
class GeneratorConfig:
    kind: Literal["single", "dual"] = "dual"
    width: int = 64
    max_features: int = 512
    downs: int = 2
    blocks: int = 6
    bottleneck: Literal["shared", "split"] = "shared"
    upsample: Literal["nearest", "bilinear"] = "nearest"
    fusion: Literal["pixel", "logit"] = "pixel"


@dataclass(frozen=True)
class MatcherConfig:
    fine: int = 32  # channels of the descriptors at a quarter of the size
    coarse: int = 64  # and at an eighth
    grid: int = 32  # cells a side of the displacement that passes
    stiff: int = 16  # cells a side of what moves the texture
    shading: int = 16  # cells a side of the shading that passes; 0: none


@dataclass(frozen=True)
class CorrectorConfig:
    width: int = 32
    blocks: int = 2


@dataclass(frozen=True)
class LandmarkConfig:
    count: int = 0  # landmarks that are found in a still image; 0: as many as the data labels
    width: int = 24


@dataclass(frozen=True)
class DiscriminatorConfig:
    width: int = 64
    max_features: int = 512
    blocks: int = 4


@dataclass(frozen=True)
class ModelConfig:
    family: Family = "keypoints"
    image_size: int = 256
    channels: int = 1
    geometry: Literal["half_pixel", "fomm"] = "half_pixel"
    keypoints: KeypointConfig = field(default_factory=KeypointConfig, metadata=_KEYPOINTS)
    motion: MotionConfig = field(default_factory=MotionConfig, metadata=_KEYPOINTS)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig, metadata=_KEYPOINTS)
    discriminator: DiscriminatorConfig = field(
        default_factory=DiscriminatorConfig, metadata=_KEYPOINTS
    )
    matcher: MatcherConfig = field(default_factory=MatcherConfig, metadata=_MATCHING)
    corrector: CorrectorConfig = field(default_factory=CorrectorConfig, metadata=_MATCHING)
    landmarks: LandmarkConfig = field(default_factory=LandmarkConfig, metadata=_MATCHING)


@dataclass(frozen=True)
class LossConfig:
    """Weights (METHOD, "Losses"); 0 leaves a loss out."""

    equivariance_value: float = _only(_KEYPOINTS, 10.0)
    equivariance_jacobian: float = _only(_KEYPOINTS, 10.0)
    equivariance_on: Literal["self_supervised", "all"] = _only(_KEYPOINTS, "all")
    supervision: float = _only(_KEYPOINTS, 100.0)
    supervision_variance: float = _only(_KEYPOINTS, 0.1)
    content: float = _only(_KEYPOINTS, 10.0)
    reconstruction: float = _only(_KEYPOINTS, 0.0)  # L1 of the final image over the same scales
    perceptual: float = _only(_KEYPOINTS, 10.0)
    perceptual_network: Literal["vgg19", "squeezenet", "none"] = _only(_KEYPOINTS, "none")
    perceptual_weights: str = _only(_KEYPOINTS, "")  # path of the network's weights
    perceptual_scales: int = _only(_KEYPOINTS, 4)
    adversarial: float = _only(_KEYPOINTS, 0.0)
    feature_matching: float = _only(_KEYPOINTS, 0.0)
    flow: float = _only(_MATCHING, 0.0)  # displacements against the known flow, at first
    flow_until: int = _only(_MATCHING, 0)  # step at which its weight is down to 0; 0: constant
    flow_exact: float = _only(_MATCHING, 0.0)  # what remains where flow is exact, not measured
    doubt: float = _only(_MATCHING, 0.1)  # how well a match knows its own error
    folding: float = _only(_MATCHING, 5.0)
    roughness: float = _only(_MATCHING, 0.05)
    pixels: float = _only(_MATCHING, 4.0)  # L1 of the frame, as a share of holding still
    structure: float = _only(_MATCHING, 4.0)  # the same of locally normalised frames
    pixels_from: int = _only(_MATCHING, 0)  # step from which pixels count
    sharpness: float = _only(_MATCHING, 0.0)  # local energy of the finest details, from then on
    landmarks: float = _only(_MATCHING, 0.0)  # places of labelled landmarks, and their presence


@dataclass(frozen=True)
class TrainConfig:
    max_steps: int = 100_000
    batch_size: int = 20
    learning_rate: float = 2e-4
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    beta1: float = 0.5
    beta2: float = 0.999
    grad_clip: float = 10.0  # infinity norm, per network
    ema: float = 0.999
    precision: Literal["fp32", "bf16"] = "bf16"
    seed: int = 0
    log_every: int = 20
    picture_every: int = 500
    checkpoint_every: int = 1000
    batchnorm_batches: int = 50  # batches that re-estimate BatchNorm for the EMA weights
    batchnorm: Literal["batch", "frozen"] = "batch"  # frozen: --from's statistics, kept


@dataclass(frozen=True)
class DataConfig:
    """How pairs are drawn (training/data/pairs.py): factors from low to high, shift a fraction,
    rotation in degrees."""

    augment: bool = True
    flip: bool = True
    scale: tuple[float, float] = (0.8, 1.2)
    shift: float = 0.1
    rotation: float = 10.0
    gain: tuple[float, float] = (0.7, 1.4)
    gamma: tuple[float, float] = (0.8, 1.25)
    synthetic: float = 0.0  # share of pairs that are a frame and its own random bend
    synthetic_until: int = 0  # step from which there are none; 0: always
    flow: Literal["none", "dis"] = _only(_MATCHING, "none")
    near_start: int = 4
    near_steps: int = 0
    labelled_fraction: float = 0.5
    bend: float = 0.16  # synthetic pairs: greatest displacement, in points
    speckle: float = 1.0  # synthetic pairs: least correlation of their speckle
    light: float = 0.0  # synthetic pairs: deviation of the log of either frame's gain
    blackout: float = 0.0  # synthetic pairs: share in which a block is hidden


@dataclass(frozen=True)
class Config:
    preset: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    data: DataConfig = field(default_factory=DataConfig)


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
    elif not path.is_file():
        raise ConfigError(
            f"no preset or TOML file named {preset_or_toml!r}",
            f"presets: {', '.join(preset_names())}",
        )
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not a readable TOML file: {error}", "fix the file") from error
    config = config_from_dict(table, where=str(path))
    if overrides:
        for override in overrides:
            apply_override(table, override)
        config = config_from_dict(table, where=f"--set {' '.join(overrides)}")
    refuse_other_families(table, config, config.model.family)
    if not config.preset:
        config = dataclasses.replace(config, preset=path.stem)
    check(config)
    return config


def config_from_dict(table: Mapping[str, Any], where: str = "config") -> Config:
    """Build a Config from nested tables, refusing unknown keys and wrong types (ConfigError)."""
    try:
        return parse(Config, table)
    except StrictError as error:
        raise ConfigError(f"{where}: {error}", error.hint or "fix the value") from error


def config_to_dict(config: Config) -> dict[str, Any]:
    """The configuration as nested dicts and lists, as kept in checkpoints and bundles."""
    return dict(plain(config))


def check(config: Config) -> None:
    """Refuse settings that fit their types but not each other (ConfigError)."""
    model, loss, train = config.model, config.loss, config.train
    weights = [f.name for f in dataclasses.fields(loss) if f.type == "float"]
    rules = [
        *(_matching_rules if model.family == "matching" else _keypoint_rules)(model, loss),
        (model.channels in (1, 3), "model.channels must be 1 or 3"),
        (all(getattr(loss, name) >= 0 for name in weights), "weights of losses must be 0 or more"),
        (min(train.max_steps, train.batch_size) >= 1, "train.max_steps, batch_size: 1 or more"),
        (0 <= train.seed < 2**32, "train.seed must be in [0, 2^32)"),
        (train.learning_rate > 0, "train.learning_rate must be positive"),
        (0 <= train.beta1 < 1 and 0 <= train.beta2 < 1, "train.beta1 and beta2 must be in [0, 1)"),
        (0 <= train.ema < 1, "train.ema must be in [0, 1)"),
        (train.grad_clip > 0, "train.grad_clip must be positive"),
        (min(train.warmup, train.batchnorm_batches) >= 0, "train.warmup, batchnorm_batches: >= 0"),
        (
            min(train.log_every, train.picture_every, train.checkpoint_every) >= 1,
            "train.*_every must be at least 1",
        ),
    ]
    for holds, sentence in rules:
        if not holds:
            raise ConfigError(sentence, "fix it in the TOML file or with --set")


Rule = tuple[bool, str]  # and what is said where it does not hold


def _keypoint_rules(model: ModelConfig, loss: LossConfig) -> list[Rule]:
    points, motion, generator = model.keypoints, model.motion, model.generator
    judge = model.discriminator
    fits = 4 * 2 ** min(max(points.depth, motion.depth, 1), 16)
    return [
        (min(points.depth, motion.depth) >= 1, "model.*.depth must be at least 1"),
        (
            model.image_size % fits == 0 and model.image_size > 0,
            f"model.image_size must be a multiple of {fits}",
        ),
        (points.self_supervised >= 0 <= points.supervised, "counts of keypoints must be >= 0"),
        (points.count >= 1, "at least one keypoint is needed"),
        (
            points.self_supervised >= 1 or loss.equivariance_on == "all",
            "loss.equivariance_on must be all where no keypoint is self-supervised",
        ),
        (points.temperature > 0, "model.keypoints.temperature must be positive"),
        (motion.variance > 0, "model.motion.variance must be positive"),
        (
            min(p.width for p in (points, motion)) >= 1 and generator.width >= 2,
            "model.*.width must be at least 1, the generator's 2",
        ),
        (
            min(p.max_features for p in (points, motion, generator)) >= 1,
            "model.*.max_features must be at least 1",
        ),
        (
            all(p.head_kernel > 0 and p.head_kernel % 2 == 1 for p in (points, motion)),
            "model.*.head_kernel must be odd",
        ),
        (
            generator.downs >= 1 and generator.blocks >= 0,
            "model.generator.downs must be at least 1, blocks 0",
        ),
        (
            min(judge.width, judge.max_features, judge.blocks) >= 1,
            "model.discriminator.width, max_features and blocks must be at least 1",
        ),
        (loss.supervision_variance > 0, "loss.supervision_variance must be positive"),
        (1 <= loss.perceptual_scales <= 6, "loss.perceptual_scales must be 1 to 6"),
        (
            loss.perceptual_network == "none" or loss.perceptual_weights != "",
            f"loss.perceptual_weights must give the path of the {loss.perceptual_network} weights",
        ),
    ]


def _matching_rules(model: ModelConfig, loss: LossConfig) -> list[Rule]:
    size, matcher, corrector = model.image_size, model.matcher, model.corrector
    grid, shading = matcher.grid, matcher.shading
    passed, most = 3 * grid**2 + max(1, shading) ** 2, most_numbers(size)
    return [
        (size > 0 == size % 64, "model.image_size must be a multiple of 64"),
        (model.geometry == "half_pixel", "model.geometry must be half_pixel to match"),
        (
            min(matcher.fine, matcher.coarse, corrector.width) >= 1 and corrector.blocks >= 0,
            "model.matcher.fine and coarse and corrector.width must be at least 1, blocks 0",
        ),
        (
            grid >= 4 and size // 8 % grid == 0,
            f"model.matcher.grid must divide {size // 8}, an eighth of the size; 4 is the least",
        ),
        (
            matcher.stiff >= 1 and grid % matcher.stiff == 0,
            "model.matcher.stiff must divide model.matcher.grid",
        ),
        (
            shading == 0 or (shading > 0 and grid % shading == 0),
            "model.matcher.shading must divide model.matcher.grid; 0 is none",
        ),
        (model.landmarks.count >= 0 < model.landmarks.width, "model.landmarks: count >= 0 < width"),
        (passed <= most, f"model.matcher passes {passed} numbers a frame, {most} are allowed"),
        (loss.pixels > 0, "loss.pixels must be positive: no other loss sees the image"),
    ]
