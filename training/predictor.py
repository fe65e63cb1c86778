"""A checkpoint behind the runtime Animator's methods, in eager torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..runtime.errors import InputError
from ..runtime.frames import letterbox, to_channels
from .checkpoint import Checkpoint, load_checkpoint
from .models.animator import Source
from .models.geometry import inverse_2x2
from .models.keypoint_detector import Keypoints


class TorchAnimator:
    """set_source once, animate per frame: for evaluation, parity and comparison.

    Images are (H, W) or (H, W, 3) uint8, results at the model's size. No smoothing and
    scale 1: what METHOD's evaluation asks for.
    """

    def __init__(self, checkpoint: Checkpoint, motion: str = "relative") -> None:
        self.config = checkpoint.config.model
        self.model = checkpoint.model()
        self.motion = motion
        self._source: Source | None = None
        self._reference: Keypoints | None = None
        self._tensors: dict[str, Tensor] = {}

    @classmethod
    def open(cls, path: Path | str, motion: str = "relative") -> TorchAnimator:
        """Load a checkpoint's EMA weights. CheckpointError when it cannot be read."""
        return cls(load_checkpoint(Path(path)), motion)

    @torch.inference_mode()
    def set_source(self, image: NDArray[np.uint8]) -> None:
        """Compute everything about the source."""
        self._source = self.model.encode(self._tensor(image))
        self._reference = None

    @torch.inference_mode()
    def set_reference(self, frame: NDArray[np.uint8]) -> None:
        """The driving frame that corresponds to the source's pose, for relative motion."""
        self._reference = self.model.keypoint_detector(self._tensor(frame))

    @torch.inference_mode()
    def animate(
        self, frame: NDArray[np.uint8], timestamp: float | None = None
    ) -> NDArray[np.uint8]:
        """One driving frame -> (S, S) grey or (S, S, 3) RGB uint8; ``timestamp`` is not needed."""
        if self._source is None:
            raise InputError("animate was called before set_source", "call set_source(image) first")
        driving = self.model.keypoint_detector(self._tensor(frame))
        if self.motion == "relative":
            if self._reference is None:
                self._reference = driving
            driving = transfer(self._source.keypoints, self._reference, driving)
        prediction, motion = self.model.animate(self._source, driving)
        self._tensors = {
            "deformation": motion.deformation,
            "occlusion_map": motion.occlusion_map,
            "target_kp_value": driving.value,
            "target_kp_jacobian": driving.jacobian,
            "content": prediction.content,
            "texture": prediction.texture,
        }
        pixels = (
            (prediction.image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        )
        return np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)

    def read(self, name: str) -> NDArray[Any]:
        """A copy of a tensor of the last frame, e.g. ``deformation``."""
        if name not in self._tensors:
            raise InputError(
                f"no tensor named {name!r}", f"after animate there are: {', '.join(self._tensors)}"
            )
        result: NDArray[Any] = self._tensors[name].float().numpy().copy()
        return result

    def _tensor(self, image: NDArray[np.uint8]) -> Tensor:
        boxed, _ = letterbox(to_channels(image, self.config.channels), self.config.image_size)
        planes = boxed[None, None] if boxed.ndim == 2 else boxed.transpose(2, 0, 1)[None]
        return torch.from_numpy(np.array(planes)).float() / 255


def transfer(
    source: Keypoints, reference: Keypoints, driving: Keypoints, scale: float = 1.0
) -> Keypoints:
    """Relative motion: p = p_S + s (p_D - p_R), J = J_D J_R^-1 J_S (METHOD, "At inference")."""
    value = source.value + scale * (driving.value - reference.value)
    jacobian = driving.jacobian @ inverse_2x2(reference.jacobian) @ source.jacobian
    return Keypoints(value, jacobian)
