"""Every setting of a model and its training, as frozen dataclasses.

The resolved configuration is kept in the checkpoint and the bundle. Every number is 0 or more,
unless its field says otherwise (:func:`_within`); config_file.py reads and checks them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Family = Literal["keypoints", "monkey-net", "matching"]
Families = tuple[Family, ...]

# Settings that some families have; `load_config` refuses them for the others.
_FIRST_ORDER: dict[str, Families] = {"families": ("keypoints",)}
_KEYPOINTS: dict[str, Families] = {"families": ("keypoints", "monkey-net")}
_MATCHING: dict[str, Families] = {"families": ("matching",)}
_TINY = 1e-9  # the least value of what must not be 0


def _only(families: dict[str, Families], default: Any) -> Any:
    return field(default=default, metadata=families)


def _within(least: float, most: float, default: Any, **families: Families) -> Any:
    """A number (or each of two) from `least` to `most`."""
    return field(default=default, metadata={"range": (least, most), **families})


def _above_0(default: Any, **families: Families) -> Any:
    return _within(_TINY, math.inf, default, **families)


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
    variance: float = _above_0(0.01, **_FIRST_ORDER)
    #: What does not move with a keypoint stays still, or moves as one affine map of the plane.
    background: Literal["still", "affine"] = _only(_FIRST_ORDER, "still")


@dataclass(frozen=True)
class GeneratorConfig:
    kind: Literal["single", "dual"] = _only(_FIRST_ORDER, "dual")
    width: int = _within(2, 4096, 64)
    max_features: int = _size(512)
    downs: int = _within(1, 8, 2)
    blocks: int = _within(0, 100, 6)
    bottleneck: Literal["shared", "split"] = _only(_FIRST_ORDER, "shared")
    fusion: Literal["pixel", "logit"] = _only(_FIRST_ORDER, "pixel")


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
    spectral_norm: bool = True
    pool_last: bool = False  # whether the last block halves the size too


@dataclass(frozen=True)
class ModelConfig:
    family: Family = "keypoints"
    image_size: int = _size(256)
    channels: Literal[1, 3] = 1
    geometry: Literal["half_pixel", "fomm_aligned", "fomm_unaligned"] = "half_pixel"
    #: Of the hourglasses and decoders, and of the warped feature that decoders read.
    upsample: Literal["nearest", "bilinear"] = _only(_FIRST_ORDER, "nearest")
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

    equivariance_value: float = _only(_FIRST_ORDER, 10.0)
    equivariance_jacobian: float = _only(_FIRST_ORDER, 10.0)
    equivariance_on: Literal["self_supervised", "all"] = _only(_FIRST_ORDER, "self_supervised")
    spline: float = _within(0, 1, 0.013, **_FIRST_ORDER)  # how much random splines bend a frame
    supervision: float = _only(_FIRST_ORDER, 200.0)
    supervision_variance: float = _above_0(1.0, **_FIRST_ORDER)
    content: float = _only(_FIRST_ORDER, 10.0)
    reconstruction: float = _only(_KEYPOINTS, 0.0)  # L1 of the final image (its scales: METHOD)
    perceptual: float = _only(_FIRST_ORDER, 10.0)
    perceptual_network: Literal["vgg19", "squeezenet", "none"] = _only(_FIRST_ORDER, "none")
    perceptual_weights: str = _only(_FIRST_ORDER, "")  # path of the network's weights
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
    sharpness: float = 0.0  # local energy of the finest details; of lite from then on
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
    flow: Literal["none", "dis"] = _only(_MATCHING, "none")
    labelled_fraction: float = _within(0, 1, 0.5)
    label_share: float = _within(0, 1, 1.0)  # of the labelled frames that are used
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


def settings(
    section: Any, prefix: str = "", **above: Any
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Name, value and facts (families, range) of all settings of a section and of those below."""
    for known in dataclasses.fields(section):
        name, value = f"{prefix}{known.name}", getattr(section, known.name)
        facts = {**above, **known.metadata}
        if dataclasses.is_dataclass(value):
            yield from settings(value, f"{name}.", **facts)
        else:
            yield name, value, facts


def has(family: Family, facts: dict[str, Any]) -> bool:
    """Whether a family has the setting with these facts."""
    return family in facts.get("families", (family,))
