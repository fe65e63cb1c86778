"""What a family of models offers, so that nothing outside asks which family it is.

A family brings its networks, its objective, the stages that export writes, and its oracle: the
model itself in plain torch, which export compares those stages with. Stages are functions of a
model and of tensors, which return what they make by name, as in runtime/bundle/manifest.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ...runtime.bundle import manifest as contract
from ...runtime.media.pixels import to_planes
from ...runtime.support.errors import ConfigError
from ..config import Config, ModelConfig
from ..data.batch import PairBatch
from ..data.keypoints import described, slip_hint, slips

Precision = Literal["fp32", "fp16"]
Image = NDArray[np.uint8]
Array = NDArray[Any]
Tensors = dict[str, Array]
Kind = tuple[torch.dtype, tuple[int, ...]]
Named = dict[str, Tensor]

MEANINGS = {
    "source_image": "source image, grey levels or RGB, letterboxed",
    "driving_frame": "driving frame, grey levels or RGB, letterboxed",
    "frame": "synthesized frame, grey levels or RGB",
    "state": "smoothing's state: seen, smoothed values, their speeds; zeros: fresh",
    "next_state": "smoothing's state after this frame",
}


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
    ``l1``, its mean absolute error, and ``hold``, the same if the source just stood still.

    ``judged`` is what the discriminator learns to tell apart, real and fake: the driving frame and
    the prediction, with what else it sees of them.
    """

    def __init__(
        self,
        losses: Named,
        prediction: Tensor,
        batch: PairBatch,
        judged: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.losses, self.prediction = losses, prediction
        self.judged = judged or (batch.driving, prediction)
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

    def totals(self, batch: PairBatch, step: int) -> Named:
        """Of losses that are no means over pairs, by name: (2,), what the loss is divided by, and
        what it is multiplied with, in this batch. With them the losses of the parts of a batch
        become that of the whole. The names do not depend on the batch."""
        return {}


class Columns(NamedTuple):
    """Columns of the training picture, by title: images (B, C, h, w) or deformations (B, h, w, 2),
    and points (B, K, 2) to draw on some of them.

    ``watched`` is what tells whether training goes wrong (training/probe.py), of those that the
    family has: `keypoints` (N, K, 2) and their `jacobian` (N, K, 2, 2) in all N images, the maps
    `occlusion` and `gate`.
    """

    images: Named
    points: Named
    watched: Named


@dataclass(frozen=True)
class StageModule(contract.Stage):
    """A stage and the torch module that computes it; its forward takes the inputs in order."""

    module: nn.Module


@dataclass(frozen=True, kw_only=True)
class ModuleChain(contract.Chain):
    """A chain whose stages are torch modules."""

    stages: tuple[StageModule, ...]


class StageFunction(nn.Module):
    """The module of a stage, by a function of a model: it has the stage's name, its other arguments
    are the inputs, the tensors that it returns are the outputs."""

    def __init__(
        self, role: contract.Role, model: nn.Module, function: Callable[..., Named]
    ) -> None:
        super().__init__()
        self.role, self.model, self.function = role, model, function

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.function(self.model, *inputs).values())


class Family:
    """One kind of model.

    Attributes:
        model, objective, eager: its classes of `Model`, `Objective` and `Oracle`.
        controls: what the caller of its stages may set.
        meanings: by a tensor's name, or by the part of its name after the first `_`.
        layers: see the manifest.
        label_network: the network, and the section of `ModelConfig`, that only learns labels, and
            may start untrained when the others do not. "" if there is none.
        label_hint: how to learn another number of labels.
    """

    model: Any
    objective: type[Objective]
    eager: type[Oracle]
    controls: tuple[contract.ControlInput, ...]
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

    def check_labels(self, config: ModelConfig, names: Sequence[str] | Mapping[str, int]) -> None:
        """Refuse data with another number of labels than the model learns from.

        Args:
            names: of the labels; a mapping says in how many frames each is.

        Raises:
            ConfigError: names the labels and the setting.
        """
        learned = self.labels(config)
        if names and learned not in (0, len(names)):
            hint = self.label_hint.format(len(names))
            if isinstance(names, Mapping):
                hint = slip_hint(slips(names)) or hint
            fault = f"the data labels {len(names)} points ({described(names)})"
            raise ConfigError(f"{fault}, the model learns {learned}", hint)

    def judged_channels(self, config: ModelConfig) -> int:
        """Channels of what the discriminator sees (`StepResult.judged`)."""
        return config.channels

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

    def functions(self, model: Any, names: Sequence[str]) -> list[StageFunction]:
        """The stages' functions, with copies of the model for them, rewritten where that pays.
        `names`: as of `chain`."""
        raise NotImplementedError

    def chain(
        self, model: Any, precision: Precision = "fp32", names: Sequence[str] = ()
    ) -> ModuleChain:
        """The stages, frozen, in eval mode and in this precision; the model is not changed.
        `names`: the labels that it learned from."""
        config, names = model.config, names[: self.labels(model.config)]
        image = torch.uint8, (1, config.channels, config.image_size, config.image_size)
        images = (contract.SOURCE_IMAGE, contract.DRIVING_FRAME, contract.LANDMARK_IMAGE)
        kinds: dict[str, Kind] = dict.fromkeys(images, image) | self.given(config)
        kinds |= {control.name: (torch.float32, (1,)) for control in self.controls}
        meanings = {**MEANINGS, **{c.name: c.meaning for c in self.controls}, **self.meanings}

        def wire(name: str) -> contract.Tensor:
            dtype, shape = kinds[name]
            who, _, what = name.partition("_")
            words = meanings.get(name) or f"{who} {meanings[what]}"
            return contract.Tensor(name, str(dtype).removeprefix("torch."), shape, words)  # type: ignore[arg-type]

        stages = []
        for stage in self.functions(model, names):
            stage.eval().requires_grad_(False)
            if precision == "fp16":  # blurs and grids stay float32
                for part in stage.modules():
                    if isinstance(part, nn.Conv2d | nn.BatchNorm2d):
                        part.half()
            _, *inputs = inspect.signature(stage.function).parameters
            with FakeTensorMode(allow_non_fake_inputs=True):  # kinds, without computing
                zeros = (torch.zeros(kinds[name][1], dtype=kinds[name][0]) for name in inputs)
                made = stage.function(stage.model, *zeros)
            for name, result in made.items():
                kinds[name] = result.dtype, tuple(result.shape)
                if stage.role == "observe":  # a reference's are those of a driving frame
                    kinds[name.replace(contract.DRIVING, contract.REFERENCE, 1)] = kinds[name]
            tensors = (tuple(map(wire, names)) for names in (inputs, made))
            stages.append(StageModule(stage.function.__name__, stage.role, *tensors, stage))
        return ModuleChain(
            image=contract.ImageFormat(config.image_size, 3 if config.channels == 3 else 1),
            geometry=config.geometry,
            control=self.control(config, names),
            controls=self.controls,
            stages=tuple(stages),
            recurrent=(contract.Recurrent("next_state", "state"),),
            layers=self.layers,
        )

    def oracle(self, model: Any) -> Oracle:
        """The reference that export compares the stages with."""
        return self.eager(self, model)


class Oracle:
    """The model itself in eager torch and float32: no stages, no rewrites. A family says what it
    sees of source and reference, and how it makes a frame. It calls no function of a stage: it
    would repeat its mistakes."""

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


def named(who: str, tensors: Any) -> Named:
    """The parts of a NamedTuple of tensors by their names on the wire."""
    return {f"{who}_{name}": tensor for name, tensor in tensors._asdict().items()}


def normalised(image: Tensor) -> Tensor:
    """uint8 (1, C, S, S) -> float32 in [0, 1]."""
    return image.float() / 255


def as_frame(image: Tensor) -> Tensor:
    """float (1, C, S, S) -> uint8, rounded to even and clamped."""
    return (image.float() * 255).round().clamp(0, 255).to(torch.uint8)
