"""A matching checkpoint with one part less or coarser: other settings, the same weights."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from ..runtime.support.errors import ConfigError
from ..training.checkpoint import Checkpoint
from ..training.config import Config, check
from ..training.models.matching.generator import CorrectingGenerator, Frame, SourceLayers
from ..training.models.matching.matcher import Matcher
from ..training.models.matching.model import MatchingModel

Part = TypeVar("Part", bound=nn.Module)


class Variant(NamedTuple):
    """A checkpoint, and the alignment of its predictions; all but `given` is for those alone."""

    name: str
    checkpoint: Checkpoint
    alignment: str = "given"


def variants(checkpoint: Checkpoint) -> list[Variant]:
    """The checkpoint as it is, and without each part that it has, or coarser where that fits."""
    model, matcher = checkpoint.config.model, checkpoint.config.model.matcher

    def changed(note: str = "", **settings: int) -> Variant:
        new = {name: value for name, value in settings.items() if value != getattr(matcher, name)}
        config = replace(checkpoint.config, model=replace(model, matcher=replace(matcher, **new)))
        title = ", ".join(f"{name} {value}" for name, value in new.items())
        return Variant(title + note, replace(checkpoint, config=config))

    found = [Variant("as it is", checkpoint)]
    for grid in (16, 8):
        if grid < matcher.grid:  # neither of the others may be finer than that
            stiff, shading = min(matcher.stiff, grid), min(matcher.shading, grid)
            found.append(changed(grid=grid, stiff=stiff, shading=shading))
    found += [changed(shading=shading) for shading in (8, 0) if shading < matcher.shading]
    if matcher.stiff < matcher.grid:
        found.append(changed(" (texture by the whole field)", stiff=matcher.grid))
    if matcher.stiff > 8:
        found.append(changed(stiff=8))
    found.append(Variant("no corrections", WithoutCorrections(**vars(checkpoint))))
    found.append(Variant("no global search", WithoutSearch(**vars(checkpoint))))
    for alignment in ("landmarks", "auto", "none"):
        found.append(Variant(f"alignment {alignment}", checkpoint, alignment))
    return [variant for variant in found if fits(variant.checkpoint.config)]


def fits(config: Config) -> bool:
    """Whether these settings go together."""
    try:
        check(config)
    except ConfigError:
        return False
    return True


class Uncorrected(CorrectingGenerator):
    """The generator without its network."""

    def forward(
        self, source: SourceLayers, deformation: Tensor, stiff: Tensor, displacement: Tensor,
        confidence: Tensor, shading: Tensor,
    ) -> Frame:  # fmt: skip
        frame: Frame = self.uncorrected(source, deformation, stiff, shading)
        return frame


class NearMatcher(Matcher):
    """The matcher without its global search: it starts at rest and sees what is near."""

    def search(self, driving: Tensor, reference: Tensor) -> Tensor:
        batch, _, side, _ = driving.shape
        return driving.new_zeros(batch, 2, side, side)


class WithoutCorrections(Checkpoint):
    """Its model has an Uncorrected generator."""

    def model(self) -> MatchingModel:
        model: MatchingModel = super().model()
        part = Uncorrected(model.config.corrector, model.config.channels)
        model.generator = with_weights(part, model.generator)
        return model


class WithoutSearch(Checkpoint):
    """Its model has a NearMatcher."""

    def model(self) -> MatchingModel:
        model: MatchingModel = super().model()
        config = model.config
        part = NearMatcher(config.matcher, config.channels, config.image_size)
        model.matcher = with_weights(part, model.matcher)
        return model


def with_weights(part: Part, other: nn.Module) -> Part:
    """The part with the weights of another one, in eval mode."""
    part.load_state_dict(other.state_dict())
    return part.eval()
