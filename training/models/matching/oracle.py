"""What the model itself computes, in torch and float32: what an export is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ....runtime.bundle.manifest import LANDMARK_IMAGE, LANDMARKS
from ....runtime.media.pixels import to_planes
from ..base import Image, Tensors
from ..geometry import make_grid
from ..one_euro import one_euro
from ..stage_modules import as_frame, normalised
from .fields import judge
from .model import MatchingModel, Seen
from .stages import CONTROLS, SEEN, SOURCE, state_size
from .transfer import Passed, put


class MatchingOracle:
    """See `Oracle`: the chain by the model's own methods, not aligned."""

    def __init__(self, model: MatchingModel) -> None:
        self.model = model.eval()
        grid = model.config.matcher.grid
        self.alignment = make_grid(grid, grid, "half_pixel")[None]

    @torch.no_grad()
    def set_source(self, image: Image, reference: Image) -> None:
        """Take source and reference, uint8 (S, S) or (S, S, 3); smoothing starts again."""
        self._source = self.model.encode(normalised(_as_tensor(image)))
        self._reference = self.model.observe(normalised(_as_tensor(reference)))
        self._state = torch.zeros(1, state_size(self.model.config))
        self._still: Tensors = {
            "source_image": to_planes(image),
            "alignment": self.alignment.numpy(),
            **{name: x.numpy() for name, x in zip(SOURCE, self._source, strict=True)},
            **_named("reference", self._reference),
        }

    @torch.no_grad()
    def animate(self, frame: Image, controls: Mapping[str, float] | None = None) -> Tensors:
        values = {control.name: control.default for control in CONTROLS} | dict(controls or {})
        given = {name: torch.tensor([value], dtype=torch.float32) for name, value in values.items()}
        driving = self.model.observe(normalised(_as_tensor(frame)))
        _, found = self.model.match(driving, self._reference)
        count = found.displacement.numel()
        moving = torch.cat([found.displacement.flatten(), found.shading.flatten()])[None]
        smooth, state = one_euro(
            moving, self._state, given["min_cutoff"], given["beta"], given["dt_seconds"]
        )
        calm = Passed(
            smooth[:, :count].view_as(found.displacement),
            found.confidence,
            smooth[:, count:].view_as(found.shading),
        )
        passed = put(calm, self.alignment, given["scale"], given["shade"])
        animation = self.model.animate(self._source, passed)
        quality = judge(passed.displacement, passed.confidence, animation.motion.deformation)
        tensors = {
            **self._still,
            **{name: value.numpy() for name, value in given.items()},
            **_named("driving", driving),
            **{name: x.numpy() for name, x in passed._asdict().items()},
            **{name: x.numpy() for name, x in animation.motion._asdict().items()},
            **{name: x.numpy() for name, x in animation.frame.layers._asdict().items()},
            "driving_frame": to_planes(frame),
            "state": self._state.numpy(),
            "next_state": state.numpy(),
            "quality": torch.stack(quality, dim=1).numpy(),
            "frame": as_frame(animation.frame.image()).numpy(),
        }
        if self.model.landmarks is not None:
            # Not of the frame's chain: any image will do to see what it finds.
            tensors[LANDMARK_IMAGE] = to_planes(frame)
            tensors[LANDMARKS] = self.model.landmarks.located(normalised(_as_tensor(frame))).numpy()
        self._state = state
        return tensors


def _as_tensor(image: Image) -> Tensor:
    return torch.from_numpy(to_planes(image))


def _named(who: str, seen: Seen) -> Tensors:
    tensors = (*seen.descriptors, seen.light)
    return {f"{who}_{name}": x.numpy() for name, x in zip(SEEN, tensors, strict=True)}
