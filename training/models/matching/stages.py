"""The stages, as functions of the model.

Frames are uint8 on the wire; normalisation, rounding and clamping are in the graphs. Coordinates,
softmax and motion are always float32; convolutions have the requested precision.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor

from ..stage_modules import Named, StagePlan, as_frame, named, normalised
from .fields import judge
from .generator import Frame, SourceLayers
from .matcher import Seen
from .model import MatchingModel
from .transfer import smooth_and_put

MEANINGS = {
    "landmark_image": "source image or reference frame, grey levels or RGB, letterboxed",
    "landmarks": "(x, y) in points, and the probability that the landmark is there",
    "source_feature": "encoded source, at a quarter of the size",
    "source_low": "low-pass of the source, at 3/2 of the size",
    "source_texture": "what the low-pass leaves of the source, at three times the size",
    "fine": "descriptors, at a quarter of the size",
    "coarse": "descriptors, at an eighth of the size",
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


def plans(model: MatchingModel, names: Sequence[str]) -> list[StagePlan]:
    """The stages of a copy of the model; without names none that finds landmarks."""
    plain = copy.deepcopy(model)
    first = [StagePlan("landmarks", "landmarks", plain, landmarks)] if names else []
    return [
        *first,
        StagePlan("source", "source", plain, source),
        StagePlan("observe", "observe", plain, observe),
        StagePlan("transfer", "frame", plain, transfer),
        StagePlan("motion", "frame", plain, motion),
        StagePlan("generator", "frame", plain, generator),
    ]


def landmarks(model: MatchingModel, landmark_image: Tensor) -> Named:
    assert model.landmarks is not None
    return {"landmarks": model.landmarks.located(normalised(landmark_image))}


def source(model: MatchingModel, source_image: Tensor) -> Named:
    return named("source", model.generator.encode(normalised(source_image)))


def observe(model: MatchingModel, driving_frame: Tensor) -> Named:
    return named("driving", model.matcher.encoder(normalised(driving_frame)))


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
    controls = (scale, shade, min_cutoff, beta, dt_seconds)
    passed, next_state = smooth_and_put(found, alignment, *controls, state)
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
    layers = SourceLayers(source_feature, source_low, source_texture)
    passed = (displacement, confidence, shading)
    frame: Frame = model.generator(layers, deformation, stiff, *passed)
    return {"frame": as_frame(frame.image()), **frame.layers._asdict()}
