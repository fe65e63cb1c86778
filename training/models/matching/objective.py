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
from .model import MatchingModel
from .transfer import Passed, folding, roughness

LENGTH = 0.01  # weight of the descriptors' length
LEVELS = (0.2, 0.5, 1.0)  # weights of the match's three displacements
SPREAD = 1.5  # deviation of a landmark's target heatmap, in cells


class MatchingObjective(Objective):
    """See `Objective`; METHOD, "Lite: matching". The source is also the reference frame."""

    def forward(
        self, model: MatchingModel, batch: PairBatch, step: int, discriminator: Discriminator | None
    ) -> StepResult:
        weights = self.config.loss
        driving, reference = model.observe_both(batch.driving, batch.source)
        match, passed = model.match(driving, reference)
        source = model.generator.encode(batch.source)
        uncorrected, _ = model.animate(source, passed, correct=False)
        # The generator's loss must not reach the matcher: displacements would become a code for
        # brightness that the generator reads, and stop being motion.
        frame, _ = model.animate(source, Passed(*(x.detach() for x in passed)))
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
            moved = uncorrected.image()
            for name, image_of in (("motion", moved), ("pixels", pixels)):
                share = picture(image_of, batch.driving, batch.source, counts)
                result[name] = on * weights.pixels * share
            share = structure(moved, batch.driving, batch.source, counts)
            result["structure"] = on * weights.structure * share
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
def picture(prediction: Tensor, real: Tensor, held: Tensor, counts: Tensor) -> Tensor:
    """L1 and twice the L1 of a low-pass of some 3 px, as a share of the source's own.

    Args:
        prediction, real, held: (B, C, S, S).
        counts: (B,), which pairs are real frames.
    """

    def cost(image: Tensor) -> Tensor:
        difference = image.float() - real
        low = F.avg_pool2d(F.avg_pool2d(difference, 3, 1, 1), 3, 1, 1)
        per_pair = difference.abs().mean(dim=(1, 2, 3)) + 2 * low.abs().mean(dim=(1, 2, 3))
        return (per_pair * counts).mean()

    return cost(prediction) / (cost(held).detach() + 1e-3)


@in_float32
def structure(prediction: Tensor, real: Tensor, held: Tensor, counts: Tensor) -> Tensor:
    """L1 of locally normalised images at half the size, as a share of the source's own: faint edges
    count as bright ones. Arguments as of `picture`."""

    def features(image: Tensor) -> Tensor:
        return locally_normalised(F.avg_pool2d(image.float().mean(dim=1, keepdim=True), 2))

    wanted = features(real)

    def cost(image: Tensor) -> Tensor:
        return ((features(image) - wanted).abs().mean(dim=(1, 2, 3)) * counts).mean()

    return cost(prediction) / (cost(held).detach() + 1e-3)


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
