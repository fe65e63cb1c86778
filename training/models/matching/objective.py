"""The objective: the matcher learns from flow first, then both networks from pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ...data.batch import PairBatch, flow_weights
from .. import image_losses
from ..base import Objective, StepResult
from ..discriminator import Discriminator
from . import fields, losses
from .landmarks import LandmarkDetector
from .model import MatchingModel
from .transfer import Passed

LENGTH = 0.01  # weight of the descriptors' length


class MatchingObjective(Objective):
    """See `Objective`; METHOD, "Lite: matching". The source is also the reference frame."""

    def pixels(self, step: int) -> float:
        """How much pixels count, from 0 to 1: the matcher has to learn from flow first."""
        loss = self.config.loss
        return min(1.0, max(0.0, (step - loss.pixels_from) / 300))

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
            error, doubt = losses.endpoint(match, batch.flow, batch.flow_valid, per_pair)
            result["flow"] = error
            result["doubt"] = weights.doubt * doubt
        result["length"] = LENGTH * (losses.length(driving.fine) + losses.length(driving.coarse))
        result["folding"] = weights.folding * fields.folding(passed.displacement)
        result["roughness"] = weights.roughness * fields.roughness(passed.displacement)
        on, image = self.pixels(step), frame.image()
        if on > 0:
            # Bent frames have other light and other speckle.
            counts = 1 - batch.bent.float()
            # L1 rewards blur where speckle has changed and would close the gate. So the gate learns
            # from the texture's local energy alone, and nothing else does.
            pixels = frame.content + frame.gate.detach() * frame.texture
            energy = frame.content.detach() + frame.gate * frame.texture.detach()
            moved = uncorrected.image()
            for name, image_of in (("motion", moved), ("pixels", pixels)):
                share = losses.picture(image_of, batch.driving, batch.source, counts)
                result[name] = on * weights.pixels * share
            share = losses.structure(moved, batch.driving, batch.source, counts)
            result["structure"] = on * weights.structure * share
            real = counts > 0
            if bool(real.any()):
                sharpness = image_losses.sharpness(energy[real], batch.driving[real])
                result["sharpness"] = on * weights.sharpness * sharpness
        if model.landmarks is not None and weights.landmarks > 0 and batch.source_points.shape[1]:
            result |= self.landmarks(model.landmarks, batch)
        return StepResult(result, image, batch)

    def landmarks(self, detector: LandmarkDetector, batch: PairBatch) -> dict[str, Tensor]:
        """Both frames of a pair teach the detector."""
        points = torch.cat([batch.source_points, batch.driving_points])
        visible = torch.cat([batch.source_visible, batch.driving_visible])
        absent = torch.cat([batch.source_absent, batch.driving_absent])
        found = detector(torch.cat([batch.source, batch.driving]))
        place, presence = losses.landmarks(found, points, visible, absent)
        weight = self.config.loss.landmarks
        return {"landmarks": weight * place, "presence": weight * presence}
