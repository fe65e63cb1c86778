"""What a family of models offers, so that nothing outside asks which family it is.

A family brings its networks, its objective, the stages that export writes, and its oracle: the
model itself in plain torch, which export compares those stages with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...runtime.bundle import manifest as contract
from ...runtime.media.pixels import to_planes
from ...runtime.support.errors import ConfigError
from ..config import Config, ModelConfig
from ..data.batch import PairBatch
from .stage_modules import (
    MEANINGS,
    Kind,
    ModuleChain,
    Named,
    Precision,
    StagePlan,
    make_stages,
    normalised,
)

Image = NDArray[np.uint8]
Array = NDArray[Any]
Tensors = dict[str, Array]


class Model(nn.Module):
    """A family's networks together."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def networks(self) -> list[nn.Module]:
        """Those with weights, whose gradients are clipped one by one."""
        return [part for part in self.children() if next(part.parameters(), None) is not None]


class StepResult:
    """One forward pass: weighted losses by name, the prediction (B, C, S, S), and two figures:
    ``l1``, its mean absolute error, and ``hold``, the same if the source just stood still."""

    def __init__(self, losses: Named, prediction: Tensor, batch: PairBatch) -> None:
        self.losses, self.prediction = losses, prediction
        self.l1 = (prediction.detach() - batch.driving).abs().mean().item()
        self.hold = (batch.source - batch.driving).abs().mean().item()


class Objective(nn.Module):
    """All losses of a configuration, weighted: its forward takes a model, a batch of images (B, C,
    S, S) in [0, 1], the step and a discriminator or None, and gives a `StepResult`.

    Attributes:
        remarks: sentences about the configuration that the user should read.

    Raises:
        ConfigError: no loss sees the image; names the setting.
    """

    remarks: tuple[str, ...] = ()

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def run(self, model: Any, batch: PairBatch, step: int) -> Any:
        """Run the model on a batch as in a training step, without computing losses."""
        raise NotImplementedError


@dataclass(frozen=True)
class Columns:
    """Columns of the training picture, by title: images (B, C, h, w) or deformations (B, h, w, 2),
    and points (B, K, 2) to draw on some of them."""

    images: Named
    points: Named


class Family:
    """One kind of model.

    Attributes:
        model, objective, eager: its classes of `Model`, `Objective` and `Oracle`.
        controls: what the caller of its stages may set.
        plans: the stages of a copy of a model, rewritten where that pays; it is also given the
            labels that the model learned from.
        meanings: see `make_stages`.
        layers: see the manifest.
        label_network: the network, and the section of `ModelConfig`, that only learns labels, and
            may start untrained when the others do not. "" if there is none.
        label_hint: how to learn another number of labels.
    """

    model: Any
    objective: type[Objective]
    eager: type[Oracle]
    controls: tuple[contract.ControlInput, ...]
    plans: Callable[[Any, Sequence[str]], list[StagePlan]]
    meanings: Mapping[str, str]
    layers: contract.Layers | None = None
    label_network = ""
    label_hint: str

    def labels(self, config: ModelConfig) -> int:
        """How many labelled keypoints it learns from; 0: it ignores labels."""
        raise NotImplementedError

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        """The configuration, with settings that were left open taken from the data's labels."""
        return config

    def check_labels(self, config: ModelConfig, names: Sequence[str]) -> None:
        """Refuse data with another number of labels than the model learns from.

        Raises:
            ConfigError: names the labels and the setting.
        """
        learned = self.labels(config)
        if names and learned not in (0, len(names)):
            raise ConfigError(
                f"the data labels {len(names)} points ({', '.join(names)}), the model learns "
                f"{learned}",
                self.label_hint.format(len(names)),
            )

    def columns(self, model: Any, batch: PairBatch) -> Columns:
        """What the training picture shows of a batch."""
        raise NotImplementedError

    def control(
        self, config: ModelConfig, names: Sequence[str]
    ) -> contract.KeypointControl | contract.DisplacementControl:
        """What carries the motion."""
        raise NotImplementedError

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        """Kinds of the inputs that no stage makes: `state`, and what other families lack."""
        raise NotImplementedError

    def chain(
        self, model: Any, precision: Precision = "fp32", names: Sequence[str] = ()
    ) -> ModuleChain:
        """The stages; the model is not changed. `names`: the labels that it learned from."""
        config = model.config
        names = names[: self.labels(config)]
        image = torch.uint8, (1, config.channels, config.image_size, config.image_size)
        images = (contract.SOURCE_IMAGE, contract.DRIVING_FRAME, contract.LANDMARK_IMAGE)
        given = dict.fromkeys(images, image)
        given |= {control.name: (torch.float32, (1,)) for control in self.controls}
        meanings = {**MEANINGS, **{c.name: c.meaning for c in self.controls}, **self.meanings}
        plans = self.plans(model, names)
        return ModuleChain(
            image=contract.ImageFormat(config.image_size, 3 if config.channels == 3 else 1),
            geometry=config.geometry,
            control=self.control(config, names),
            controls=self.controls,
            stages=make_stages(plans, given | self.given(config), meanings, precision),
            recurrent=(contract.Recurrent("next_state", "state"),),
            layers=self.layers,
        )

    def oracle(self, model: Any) -> Oracle:
        """The reference that export compares the stages with."""
        return self.eager(self, model)


class Oracle:
    """The model itself in eager torch and float32: no stages, no rewrites. A family says what it
    sees of source and reference, and how it makes a frame."""

    def __init__(self, family: Family, model: Any) -> None:
        self.model = model.eval()
        self.controls = {control.name: control.default for control in family.controls}
        self.fresh = torch.zeros(family.given(model.config)["state"][1])

    def look(self, source: Tensor, reference: Tensor) -> Named:
        """Tensors that stay the same for all frames; images (1, C, S, S) in [0, 1]."""
        raise NotImplementedError

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        """The tensors of one frame, with `frame` and `next_state`; `given` are the controls."""
        raise NotImplementedError

    @torch.no_grad()
    def set_source(self, image: Image, reference: Image) -> None:
        """Take source and reference, uint8 (S, S) or (S, S, 3), and reset the smoothing."""
        source, first = (torch.from_numpy(to_planes(each)) for each in (image, reference))
        self._still = {"source_image": source, **self.look(normalised(source), normalised(first))}
        self._state = self.fresh

    @torch.no_grad()
    def animate(self, frame: Image, controls: Mapping[str, float] | None = None) -> Tensors:
        """Every tensor on the wire for one frame, by name; controls not given have defaults."""
        driving, values = torch.from_numpy(to_planes(frame)), self.controls | dict(controls or {})
        given = {name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()}
        made = self.frame(normalised(driving), list(given.values()), self._state)
        tensors = {**self._still, **given, "driving_frame": driving, "state": self._state, **made}
        self._state = made["next_state"]
        return {name: tensor.numpy() for name, tensor in tensors.items()}
