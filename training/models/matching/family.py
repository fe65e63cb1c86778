"""The matching model as a `Family`: its stages, oracle, labels, and pictures of a training.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....runtime.alignment import SURE
from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS, DisplacementControl, Layers
from ...config import Config, ModelConfig
from ...data.batch import PairBatch
from ..base import Columns, Family, Kind, Named, Oracle, StageFunction, as_frame, named, normalised
from ..geometry import make_grid
from ..one_euro import one_euro
from .matcher import Seen
from .model import MatchingModel, Motion, SourceLayers
from .objective import MatchingObjective
from .transfer import CONTROLS, MOST, Passed, determinant, judge, put

MEANINGS = {
    "landmark_image": "source image or reference frame, grey levels or RGB, letterboxed",
    "landmarks": "(x, y) in points, and the probability that the landmark is there",
    "source_feature": "encoded source, at a quarter of the size",
    "source_low": "low-pass of the source, at 3/2 of the size",
    "source_texture": "what the low-pass leaves of the source, at three times the size",
    "fine": "descriptors of length 1, at a quarter of the size",
    "coarse": "descriptors of length 1, at an eighth of the size",
    "light": "frame's mean level, at a quarter of the size, in [0, 1]",
    "alignment": "for each cell of the source, where in the reference its motion is read, (x, y)",
    "displacement": "for each cell, how far away the source is read, (x, y) in points",
    "confidence": "how sure the displacement is, in [0, 1]",
    "shading": "log of a factor of a grey level's odds",
    "deformation": "for each pixel, where to read the source's low-pass, (x, y) in [-1, 1]",
    "stiff": "for each pixel, where to read the source's texture, (x, y) in [-1, 1]",
    "quality": "mean confidence, longest displacement, shares folded and unseen",
    "gain": "layer: factor of the low-pass",
    "offset": "layer: added to the low-pass",
    "gate": "layer: factor of the texture",
}


def landmarks(model: MatchingModel, landmark_image: Tensor) -> Named:
    assert model.landmarks is not None
    return {"landmarks": model.landmarks.located(normalised(landmark_image))}


def source(model: MatchingModel, source_image: Tensor) -> Named:
    return named("source", model.generator.encode(normalised(source_image)))


def observe(model: MatchingModel, driving_frame: Tensor) -> Named:
    return named("driving", model.matcher.encoder(normalised(driving_frame)).unit())


def transfer(
    model: MatchingModel,
    reference_fine: Tensor, reference_coarse: Tensor, reference_light: Tensor,
    driving_fine: Tensor, driving_coarse: Tensor, driving_light: Tensor,
    alignment: Tensor, scale: Tensor, shade: Tensor,
    min_cutoff: Tensor, beta: Tensor, dt_seconds: Tensor, state: Tensor,
) -> Named:  # fmt: skip
    """The match reduced to few numbers, smoothed, aligned, scaled."""
    driving = Seen(driving_fine, driving_coarse, driving_light)
    _, found = model.match(driving, Seen(reference_fine, reference_coarse, reference_light))
    moving = (found.displacement, found.shading)
    (calm, light), next_state = one_euro(moving, state, min_cutoff, beta, dt_seconds)
    passed = put(Passed(calm, found.confidence, light), alignment, scale, shade)
    return {**passed._asdict(), "next_state": next_state}


def motion(model: MatchingModel, displacement: Tensor, confidence: Tensor) -> Named:
    found = model.move(displacement)
    return {**found._asdict(), "quality": judge(displacement, confidence, found.deformation)}


def generator(
    model: MatchingModel,
    source_feature: Tensor, source_low: Tensor, source_texture: Tensor,
    deformation: Tensor, stiff: Tensor, displacement: Tensor, confidence: Tensor,
    shading: Tensor,
) -> Named:  # fmt: skip
    source = SourceLayers(source_feature, source_low, source_texture)
    passed = Passed(displacement, confidence, shading)
    frame = model.frame(source, Motion(deformation, stiff), passed)
    return {"frame": as_frame(frame.image()), **frame.layers._asdict()}


class MatchingOracle(Oracle):
    """The two subjects are not aligned."""

    def look(self, source: Tensor, reference: Tensor) -> Named:
        self._source = self.model.generator.encode(source)
        self._reference = self.model.matcher.encoder(reference).unit()
        grid = self.model.config.matcher.grid
        self._alignment = make_grid(grid, grid, "half_pixel")[None]
        return {
            "alignment": self._alignment,
            **named("source", self._source),
            **named("reference", self._reference),
        }

    def frame(self, driving: Tensor, given: Sequence[Tensor], state: Tensor) -> Named:
        scale, shade, *smoothing = given
        seen = self.model.matcher.encoder(driving).unit()
        _, found = self.model.match(seen, self._reference)
        moving, next_state = one_euro((found.displacement, found.shading), state, *smoothing)
        calm = found._replace(displacement=moving[0], shading=moving[1])
        passed = put(calm, self._alignment, scale, shade)
        frame, motion = self.model.animate(self._source, passed)
        tensors = {
            **named("driving", seen),
            **passed._asdict(),
            "next_state": next_state,
            **motion._asdict(),
            "quality": judge(passed.displacement, passed.confidence, motion.deformation),
            **frame.layers._asdict(),
            "frame": as_frame(frame.image()),
        }
        if self.model.landmarks is not None:
            # This stage runs on its own, so any image will do.
            tensors[LANDMARK_IMAGE] = as_frame(driving)
            tensors[LANDMARKS] = self.model.landmarks.located(driving)
        return tensors


class MatchingFamily(Family):
    """Only the landmark detector learns labels."""

    model = MatchingModel
    objective = MatchingObjective
    eager = MatchingOracle
    controls = CONTROLS
    meanings = MEANINGS
    layers = Layers("deformation", "stiff", "gain", "offset", "gate")
    label_network = "landmarks"
    label_hint = "--set model.landmarks.count={}, or leave it out to follow the labels"

    def labels(self, config: ModelConfig) -> int:
        return config.landmarks.count

    def with_labels(self, config: Config, names: Sequence[str]) -> Config:
        model = config.model
        if model.landmarks.count or not config.loss.landmarks:
            return config
        count = replace(model.landmarks, count=len(names))
        return replace(config, model=replace(model, landmarks=count))

    def columns(self, model: MatchingModel, batch: PairBatch) -> Columns:
        seen = model.observe_both(batch.driving, batch.source)
        _, passed = model.match(*(each.unit() for each in seen))
        frame, motion = model.animate(model.generator.encode(batch.source), passed)
        images = {
            "source": batch.source,
            "driving": batch.driving,
            "deformation": motion.deformation,
            "displacement": colour_wheel(passed.displacement),
            "confidence": passed.confidence,
            "shading": passed.shading / (2 * MOST) + 0.5,
            "folding": 1 - determinant(passed.displacement).clamp(0, 1)[:, None],
            "gate": frame.layers.gate / 2,
            "prediction": frame.image(),
        }
        points = {}
        if model.landmarks is not None:
            for name in ("source", "driving"):
                found = model.landmarks.located(images[name])
                # Those that are not there are put outside of the picture.
                points[name] = found[..., :2].masked_fill(found[..., 2:] < SURE, -2.0)
        return Columns(images, points, {"gate": frame.layers.gate})

    def control(self, config: ModelConfig, names: Sequence[str]) -> DisplacementControl:
        grid, shading = config.matcher.grid, config.matcher.shading
        return DisplacementControl(grid, grid, shading, shading, tuple(names))

    def given(self, config: ModelConfig) -> dict[str, Kind]:
        grid, shading = config.matcher.grid, max(1, config.matcher.shading)
        return {  # the state: "seen", displacement and shading, their speeds
            "state": (torch.float32, (1, 1 + 2 * (2 * grid**2 + shading**2))),
            "alignment": (torch.float32, (1, grid, grid, 2)),
        }

    def functions(self, model: MatchingModel, names: Sequence[str]) -> list[StageFunction]:
        own = copy.deepcopy(model)
        return [
            *([StageFunction("landmarks", own, landmarks)] if names else ()),
            StageFunction("source", own, source),
            StageFunction("observe", own, observe),
            StageFunction("frame", own, transfer),
            StageFunction("frame", own, motion),
            StageFunction("frame", own, generator),
        ]


def colour_wheel(displacement: Tensor) -> Tensor:
    """A displacement (B, n, n, 2) as colours (B, 3, n, n): the hue is the direction, white is no
    motion, full saturation a length of .16 points or more."""
    angle = torch.atan2(displacement[..., 1], displacement[..., 0])
    length = (displacement.square().sum(-1).sqrt() / 0.16).clamp(0, 1)
    hues = torch.stack([angle - k * 2 * torch.pi / 3 for k in range(3)], dim=1)
    return 1 - length[:, None] * (0.5 - 0.5 * torch.cos(hues))
