"""What a family of models offers, so that nothing outside asks which family it is.

A family brings its networks, its objective, the stages that export writes, and its oracle: the
model itself in plain torch, which export compares those stages with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ...runtime.bundle.manifest import Chain, Stage
from ..config import Config, ModelConfig
from ..data.batch import PairBatch
from .discriminator import Discriminator

Precision = Literal["fp32", "fp16"]
Image = NDArray[np.uint8]
Array = NDArray[Any]
Tensors = dict[str, Array]


class Model(nn.Module):
    """A family's networks together."""

    config: ModelConfig

    def networks(self) -> list[nn.Module]:
        """The networks whose gradients are clipped one by one."""
        raise NotImplementedError


@dataclass
class StepResult:
    """One forward pass: weighted losses by name, the prediction (B, C, S, S), and two figures."""

    losses: dict[str, Tensor]
    prediction: Tensor
    l1: float  # mean absolute error of the prediction
    hold: float  # the same if the source just stood still


class Objective(nn.Module):
    """All losses of a configuration, weighted.

    Attributes:
        remarks: sentences about the configuration that the user should read.
    """

    remarks: tuple[str, ...] = ()

    def run(self, model: Any, batch: PairBatch, step: int) -> Any:
        """Run the model on a batch as in a training step, without computing losses."""
        raise NotImplementedError

    def forward(
        self, model: Any, batch: PairBatch, step: int, discriminator: Discriminator | None
    ) -> StepResult:
        """Weighted generator-side losses of one batch; images (B, C, S, S) in [0, 1]."""
        raise NotImplementedError


def step_result(losses: dict[str, Tensor], prediction: Tensor, batch: PairBatch) -> StepResult:
    """The losses with the figures that every family reports."""
    l1 = (prediction.detach() - batch.driving).abs().mean().item()
    hold = (batch.source - batch.driving).abs().mean().item()
    return StepResult(losses, prediction, l1, hold)


@dataclass(frozen=True)
class StageModule(Stage):
    """A stage and the torch module that computes it; its forward takes the inputs in order."""

    module: nn.Module


@dataclass(frozen=True, kw_only=True)
class ModuleChain(Chain):
    """A chain whose stages are torch modules."""

    stages: tuple[StageModule, ...]


@dataclass(frozen=True)
class Columns:
    """Columns of the training picture, by title: images (B, C, h, w) or deformations (B, h, w, 2),
    and points (B, K, 2) to draw on some of them."""

    images: dict[str, Tensor]
    points: dict[str, Tensor]


class Oracle(Protocol):
    """The model itself in eager torch and float32: no stages, no rewrites."""

    def set_source(self, image: Image, reference: Image) -> None:
        """Take source and reference, uint8 (S, S) or (S, S, 3), and reset the smoothing."""

    def animate(self, frame: Image, controls: Mapping[str, float] | None = None) -> Tensors:
        """Every tensor on the wire for one frame, by name; controls not given have defaults."""


class Family(Protocol):
    """One kind of model.

    Attributes:
        label_network: the network, and the section of `ModelConfig`, that only learns labels, and
            may start untrained when the others do not. "" if there is none.
    """

    label_network: str

    def model(self, config: ModelConfig) -> Any:
        """The untrained model."""

    def objective(self, config: Config) -> Objective:
        """Its losses.

        Raises:
            ConfigError: no loss sees the image; names the setting.
        """

    def labels(self, config: ModelConfig) -> int:
        """How many labelled keypoints it learns from; 0: it ignores labels."""

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        """The configuration, with settings that were left open taken from the data's labels."""

    def check_labels(self, config: ModelConfig, names: Sequence[str]) -> None:
        """Refuse data with another number of labels than the model learns from.

        Raises:
            ConfigError: names the labels and the setting.
        """

    def columns(self, model: Any, batch: PairBatch) -> Columns:
        """What the training picture shows of a batch."""

    def chain(
        self, model: Any, precision: Precision = "fp32", names: Sequence[str] = ()
    ) -> ModuleChain:
        """The stages, rewritten where that pays; the model is not changed. `names`: the labels that
        it learned from."""

    def oracle(self, model: Any) -> Oracle:
        """The reference that export compares the stages with."""
