"""The objective: the matcher learns from flow first, then both networks from pixels.

Losses are scalars, unweighted.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...data.batch import PairBatch, flow_weights
from .. import image_losses
from ..base import Objective, StepResult
from ..geometry import in_float32, make_grid
from ..image_losses import Discriminator
from .landmarks import Landmarks
from .matcher import Match, locally_normalised
from .model import Frame, MatchingModel, Moved
from .transfer import Passed, folding, roughness

LENGTH = 0.01  # weight of the descriptors' length
LEVELS = (0.2, 0.5, 1.0)  # weights of the match's three displacements
HELD = 1e-3  # added to the cost of the source, which may be none
SPREAD = 1.5  # deviation of a landmark's target heatmap, in cells


class MatchingObjective(Objective):
    """See `Objective`; METHOD, "Lite: matching". The source is also the reference frame."""

    def forward(
        self, model: MatchingModel, batch: PairBatch, step: int, discriminator: Discriminator | None
    ) -> StepResult:
        weights = self.config.loss
        driving, reference = model.observe_both(batch.driving, batch.source)
        match, passed = model.match(driving.unit(), reference.unit())
        source = model.generator.encode(batch.source)
        motion = model.move(passed.displacement)
        moved = model.generator.move(source, motion)
        uncorrected = model.generator.uncorrected(moved, passed).image()
        # The generator's loss must not reach the matcher: displacements would become a code for
        # brightness that the generator reads, and stop being motion.
        given = Passed(*(x.detach() for x in passed)), Moved(*(x.detach() for x in moved))
        frame: Frame = model.generator(source.feature, motion.deformation.detach(), *given)
        result: dict[str, Tensor] = {}
        measured, exact = flow_weights(weights, step)
        if batch.flow is not None:
            per_pair = torch.where(batch.flow_exact, exact, measured)
            error, doubt = endpoint(match, batch.flow, batch.flow_valid, per_pair)
            result["flow"] = error
            result["doubt"] = weights.doubt * doubt
        result["length"] = LENGTH * (length(driving.fine) + length(driving.coarse))
        result["folding"] = weights.folding * folding(passed.displacement)
        result["roughness"] = weights.roughness * roughness(passed.displacement)
        image = frame.image()
        # How much pixels count: the matcher has to learn from flow first.
        on = min(1.0, max(0.0, (step - weights.pixels_from) / 300))
        if on > 0:
            # Bent frames have other light and other speckle.
            counts = 1 - batch.bent.float()
            # L1 rewards blur where speckle has changed and would close the gate. So the gate learns
            # from the texture's local energy alone, and nothing else does.
            pixels = frame.content + frame.gate.detach() * frame.texture
            energy = frame.content.detach() + frame.gate * frame.texture.detach()
            # Costs are shares of the source's own, held still.
            still = picture_cost(batch.source, batch.driving, counts) + HELD
            for name, image_of in (("motion", uncorrected), ("pixels", pixels)):
                cost = picture_cost(image_of, batch.driving, counts)
                result[name] = on * weights.pixels * cost / still
            still = structure_cost(batch.source, batch.driving, counts) + HELD
            cost = structure_cost(uncorrected, batch.driving, counts)
            result["structure"] = on * weights.structure * cost / still
            real = counts > 0
            if bool(real.any()):
                sharpness = image_losses.sharpness(energy[real], batch.driving[real])
                result["sharpness"] = on * weights.sharpness * sharpness
        if model.landmarks is not None and weights.landmarks > 0 and batch.source_points.shape[1]:
            both = torch.cat([batch.source, batch.driving])
            points = torch.cat([batch.source_points, batch.driving_points])
            visible = torch.cat([batch.source_visible, batch.driving_visible])
            absent = torch.cat([batch.source_absent, batch.driving_absent])
            place, presence = landmarks(model.landmarks(both), points, visible, absent)
            result["landmarks"] = weights.landmarks * place
            result["presence"] = weights.landmarks * presence
        return StepResult(result, image, batch)

    def totals(self, batch: PairBatch, step: int) -> dict[str, Tensor]:
        """Exact but for `length`, and `sharpness`, whose parts count by their real pairs."""
        real = 1 - batch.bent.float()
        images = batch.source, batch.driving, real
        one = real.new_ones(())
        trusted, there, flowing = real.new_zeros(3)
        if batch.flow is not None:
            measured, exact = flow_weights(self.config.loss, step)
            counts = (torch.where(batch.flow_exact, exact, measured) > 0).float()
            cells = batch.flow_valid.float().sum(dim=(1, 2))
            trusted, there, flowing = (cells * counts).sum(), cells.sum(), counts.mean()
        seen = [
            x.sum() + y.sum()
            for x, y in (
                (batch.source_visible, batch.driving_visible),
                (batch.source_absent, batch.driving_absent),
            )
        ]
        held = picture_cost(*images) + HELD
        found = {
            "flow": (trusted, flowing),
            "doubt": (there, one),
            "motion": (held, one),
            "pixels": (held, one),
            "structure": (structure_cost(*images) + HELD, one),
            "sharpness": (real.sum(), one),
            "landmarks": (seen[0], one),
            "presence": (seen[0] + seen[1], one),
        }
        return {name: torch.stack([x.float() for x in pair]) for name, pair in found.items()}


@in_float32
def endpoint(match: Match, known: Tensor, valid: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Robust endpoint error of the three displacements, in pixels of 256; and the Laplace loss of
    the expected error.

    Args:
        known: (B, S/4, S/4, 2), the true deformation; valid: (B, S/4, S/4), where it is known.
        weights: (B,), of the pairs. A pair of weight 0 counts in the mean as one without error, so
            that the others' weight does not jump when its own reaches 0.
    """
    side = known.shape[1]
    target = ((known - make_grid(side, side, "half_pixel", known.device)) * 128).permute(0, 3, 1, 2)
    counts = (weights > 0).float()
    there = valid.float()[:, None]
    trusted = there * counts[:, None, None, None]
    error, total = target.new_zeros(()), target.new_zeros(())
    for field, level in zip(match[:3], LEVELS, strict=True):
        n = field.shape[-1]
        share = F.avg_pool2d(trusted, side // n)
        wanted = F.avg_pool2d(target * there, side // n) / (F.avg_pool2d(there, side // n) + 1e-3)
        error = ((field.float() * (256 / n) - wanted).square().sum(1, keepdim=True) + 0.01).sqrt()
        per_pair = error * share * weights[:, None, None, None]
        total = total + level * per_pair.sum() / share.sum().clamp(min=1)
    # The error is detached: its scale is learned without a cost to the motion, and from all pairs
    # with known flow, also those of weight 0.
    scale = match.log_error.float()
    unsure = error.detach() * torch.exp(-scale) + scale
    share = F.avg_pool2d(there, side // scale.shape[-1])
    doubt = (unsure * share).sum() / share.sum().clamp(min=1)
    return total * counts.mean(), doubt


@in_float32
def length(descriptors: Tensor) -> Tensor:
    """Square of the log of the mean length of descriptors (B, C, n, n). Only their direction is
    compared, so without this loss they grow until half precision overflows."""
    mean = descriptors.float().norm(dim=1).mean()
    return mean.clamp(min=1e-3).log().square()


@in_float32
def picture_cost(image: Tensor, real: Tensor, counts: Tensor) -> Tensor:
    """L1 and twice the L1 of a low-pass of some 3 px, the mean over pairs.

    Args:
        image, real: (B, C, S, S).
        counts: (B,), which pairs are real frames.
    """
    difference = image.float() - real
    low = image_losses.box(image_losses.box(difference))
    per_pair = difference.abs().mean(dim=(1, 2, 3)) + 2 * low.abs().mean(dim=(1, 2, 3))
    return (per_pair * counts).mean()


@in_float32
def structure_cost(image: Tensor, real: Tensor, counts: Tensor) -> Tensor:
    """L1 of locally normalised images at half the size: faint edges count as bright ones. Arguments
    as of `picture_cost`."""
    found, wanted = (
        locally_normalised(F.avg_pool2d(x.float().mean(dim=1, keepdim=True), 2))
        for x in (image, real)
    )
    return ((found - wanted).abs().mean(dim=(1, 2, 3)) * counts).mean()


@in_float32
def landmarks(
    found: Landmarks, points: Tensor, visible: Tensor, absent: Tensor
) -> tuple[Tensor, Tensor]:
    """Two losses of B images. Places, where visible: the divergence of the heatmap from a Gaussian
    around the label, plus the distance from the label in cells. Presence, where known: its cross
    entropy.

    Args:
        points: (B, K, 2), the labels.
        visible, absent: bool (B, K).
    """
    side = found.heatmap.shape[-1]
    grid = make_grid(side, side, "half_pixel", points.device).view(-1, 2)
    distance = (grid - points[:, :, None]).square().sum(-1) * (side / 2) ** 2
    wanted = (-distance / (2 * SPREAD**2)).log_softmax(dim=-1)
    given = found.heatmap.float().flatten(2).log_softmax(dim=-1)
    place = (wanted.exp() * (wanted - given)).sum(-1)
    gap = ((found.points - points) * (side / 2)).square().sum(-1)
    place = place + (gap + 0.01).sqrt()
    shown = visible.float()
    known = (visible | absent).float()
    presence = F.binary_cross_entropy_with_logits(found.present, shown, reduction="none")
    return (
        (place * shown).sum() / shown.sum().clamp(min=1),
        (presence * known).sum() / known.sum().clamp(min=1),
    )
